// A hub as a Go program has it: a goroutine and a buffered channel for each connection.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

type event struct {
	OrderID string `json:"orderId"`
	Status  string `json:"status"`
	Carrier string `json:"carrier"`
	Note    string `json:"note"`
	Mark    string `json:"mark"`
}

var (
	order = event{
		"3f2a7c1e-5b64-4d0e-9f58-6a1c0b9d7e21", "shipped", "Example Parcel Service",
		"Left the sorting centre at 04:12, due before noon on Thursday: ring at no. 7", "~",
	}
	mutex       sync.Mutex
	subscribers = map[chan []byte]struct{}{}
	heartbeat   time.Duration
)

func encode() []byte {
	data, _ := json.Marshal(order)
	return []byte(fmt.Sprintf("data: %s\n\n", data))
}

func open(w http.ResponseWriter) http.Flusher {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write([]byte(":\n\n"))
	flusher := w.(http.Flusher)
	flusher.Flush()
	return flusher
}

func leave(frames chan []byte) {
	mutex.Lock()
	defer mutex.Unlock()
	if _, ok := subscribers[frames]; ok {
		delete(subscribers, frames)
		close(frames)
	}
}

func subscribe(w http.ResponseWriter, r *http.Request) {
	flusher := open(w)
	frames := make(chan []byte, 256)
	mutex.Lock()
	subscribers[frames] = struct{}{}
	mutex.Unlock()
	defer leave(frames)
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case frame, ok := <-frames:
			if !ok {
				return
			}
			w.Write(frame)
		case <-ticker.C:
			w.Write([]byte(":\n\n"))
		case <-r.Context().Done():
			return
		}
		flusher.Flush()
	}
}

// A subscriber whose channel is full is disconnected.
func publish(w http.ResponseWriter, r *http.Request) {
	frame := encode()
	mutex.Lock()
	for frames := range subscribers {
		select {
		case frames <- frame:
		default:
			delete(subscribers, frames)
			close(frames)
		}
	}
	mutex.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func stream(w http.ResponseWriter, r *http.Request) {
	flusher := open(w)
	for r.Context().Err() == nil {
		w.Write(encode())
		flusher.Flush()
	}
}

func heap(w http.ResponseWriter, r *http.Request) {
	runtime.GC()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fmt.Fprint(w, memory.HeapAlloc+memory.StackInuse)
}

func main() {
	millis, _ := strconv.Atoi(os.Getenv("HEARTBEAT"))
	heartbeat = time.Duration(millis) * time.Millisecond
	size, _ := strconv.Atoi(os.Getenv("SIZE"))
	if data, _ := json.Marshal(order); len(data) < size {
		order.Note += strings.Repeat(".", size-len(data))
	}
	http.HandleFunc("/events", subscribe)
	http.HandleFunc("/publish", publish)
	http.HandleFunc("/stream", stream)
	http.HandleFunc("/heap", heap)
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
