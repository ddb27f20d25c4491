/**
 * The tables of a log:
 *
 * - `log`: an event for each row. `n` and `total` count the events and the bytes of its channel up to it, so that the
 *   first event within the limits is found by its values alone. `expires` is the time until which an event is stored
 *   that was appended with an age of its own.
 * - `log_channels`: the last event of each channel, and its floor: the last event that was evicted. In PostgreSQL,
 *   `deleted` is the place up to which an append has deleted the events.
 * - `log_state`: one row. The epoch, the head, the highest floor, and the last event of all forgotten channels.
 * - `log_keys`: the idempotency keys.
 * - `log_outbox` (PostgreSQL): the events of transactions. A row is visible once its transaction has committed.
 * - `log_nodes`, `log_presence`: the leases of the nodes, and the numbers of their subscribers.
 *
 * An append is one statement that does all of its work in the database: a function of PostgreSQL, or a trigger of
 * SQLite. So no lock is held while a node is on its way, stopped or dead.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import * as Effect from "effect/Effect"

import { makeEpoch } from "../../../EventLog.js"

/**
 * An evicted event remains in its table until this many events follow it, so that the tails of all nodes read it before
 * it is deleted.
 */
export const tailWindow = 4096

const common = (t: string): ReadonlyArray<string> => [
  `CREATE TABLE IF NOT EXISTS ${t}_state (
    id INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq BIGINT NOT NULL,
    floor BIGINT NOT NULL,
    forgotten BIGINT NOT NULL
  )`,
  `CREATE TABLE IF NOT EXISTS ${t}_channels (
    channel TEXT PRIMARY KEY,
    n BIGINT NOT NULL,
    total BIGINT NOT NULL,
    last BIGINT NOT NULL,
    floor BIGINT NOT NULL,
    deleted BIGINT NOT NULL DEFAULT 0,
    at DOUBLE PRECISION NOT NULL
  )`,
  `CREATE TABLE IF NOT EXISTS ${t}_keys (
    channel TEXT NOT NULL,
    key TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (channel, key)
  )`,
  `CREATE INDEX IF NOT EXISTS ${t}_keys_by_time ON ${t}_keys (at)`,
  `CREATE TABLE IF NOT EXISTS ${t}_nodes (node TEXT PRIMARY KEY, expires DOUBLE PRECISION NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS ${t}_presence (
    node TEXT NOT NULL,
    channel TEXT NOT NULL,
    matcher TEXT,
    slashes INTEGER NOT NULL,
    count BIGINT NOT NULL,
    announcement BIGINT NOT NULL,
    PRIMARY KEY (channel, node)
  )`,
  `CREATE INDEX IF NOT EXISTS ${t}_presence_by_node ON ${t}_presence (node)`
]

// An event without an age of its own is not in it, and costs nothing.
const byExpiry = (t: string) => `CREATE INDEX IF NOT EXISTS ${t}_by_expiry ON ${t} (expires) WHERE expires IS NOT NULL`

const sqlite = (t: string): ReadonlyArray<string> => [
  `CREATE TABLE IF NOT EXISTS ${t} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    key TEXT,
    data BLOB NOT NULL,
    size INTEGER NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    capacity INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL,
    n INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0
  )`,
  `CREATE INDEX IF NOT EXISTS ${t}_by_channel ON ${t} (channel, seq)`,
  byExpiry(t),
  // A deletion by age: the events of a channel are deleted in their order.
  `CREATE TRIGGER IF NOT EXISTS ${t}_deleted AFTER DELETE ON ${t} BEGIN
    UPDATE ${t}_channels SET floor = OLD.seq WHERE channel = OLD.channel AND floor < OLD.seq;
    UPDATE ${t}_state SET floor = OLD.seq WHERE floor < OLD.seq;
  END`,
  `CREATE TRIGGER IF NOT EXISTS ${t}_appended AFTER INSERT ON ${t} BEGIN
    INSERT INTO ${t}_channels (channel, n, total, last, floor, at)
      VALUES (NEW.channel, 1, NEW.size, NEW.seq, 0, NEW.at)
      ON CONFLICT (channel) DO UPDATE SET
        n = n + 1, total = total + excluded.total, last = excluded.last, at = excluded.at;
    UPDATE ${t} SET
      n = (SELECT n FROM ${t}_channels WHERE channel = NEW.channel),
      total = (SELECT total FROM ${t}_channels WHERE channel = NEW.channel)
      WHERE seq = NEW.seq;
    UPDATE ${t}_channels SET floor = COALESCE((
      SELECT seq FROM ${t} WHERE channel = NEW.channel AND seq > ${t}_channels.floor AND seq < (
        SELECT seq FROM ${t} AS kept WHERE channel = NEW.channel AND seq > ${t}_channels.floor AND (
          seq = NEW.seq OR (
            kept.n > ${t}_channels.n - NEW.capacity AND kept.total - kept.size >= ${t}_channels.total - NEW.max_bytes
          )
        ) ORDER BY seq LIMIT 1
      ) ORDER BY seq DESC LIMIT 1
    ), floor) WHERE channel = NEW.channel;
    UPDATE ${t}_state SET
      seq = NEW.seq, floor = MAX(floor, (SELECT floor FROM ${t}_channels WHERE channel = NEW.channel));
    DELETE FROM ${t} WHERE channel = NEW.channel AND seq <= MIN(
      NEW.seq - ${tailWindow}, (SELECT floor FROM ${t}_channels WHERE channel = NEW.channel)
    );
    INSERT OR REPLACE INTO ${t}_keys (channel, key, seq, at)
      SELECT NEW.channel, NEW.key, NEW.seq, NEW.at WHERE NEW.key IS NOT NULL;
  END`
]

const pg = (t: string): ReadonlyArray<string> => [
  `CREATE TABLE IF NOT EXISTS ${t} (
    seq BIGINT PRIMARY KEY,
    channel TEXT NOT NULL,
    data BYTEA NOT NULL,
    size BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    capacity BIGINT NOT NULL,
    max_bytes BIGINT NOT NULL,
    n BIGINT NOT NULL,
    total BIGINT NOT NULL
  )`,
  `CREATE INDEX IF NOT EXISTS ${t}_by_channel ON ${t} (channel, seq)`,
  byExpiry(t),
  `CREATE TABLE IF NOT EXISTS ${t}_outbox (
    id BIGSERIAL PRIMARY KEY,
    channel TEXT NOT NULL,
    key TEXT,
    data BYTEA NOT NULL,
    capacity BIGINT,
    max_bytes BIGINT,
    max_age DOUBLE PRECISION
  )`,
  // The lock on the state orders all appends. Each statement after it sees the transactions that committed before it.
  `CREATE OR REPLACE FUNCTION ${t}_append(
    channels TEXT[], keys TEXT[], datas BYTEA[], capacities BIGINT[], sizes BIGINT[], ages DOUBLE PRECISION[],
    afters BIGINT[], capacity BIGINT, max_bytes BIGINT, max_age DOUBLE PRECISION, OUT epoch TEXT, OUT places DOUBLE PRECISION[]
  ) LANGUAGE plpgsql AS $$
  DECLARE
    began BIGINT;
    head BIGINT;
    highest BIGINT;
    kept BIGINT;
    evicted BIGINT;
    gone BIGINT;
    now_at DOUBLE PRECISION;
    c RECORD;
  BEGIN
    SELECT s.epoch, s.seq, s.floor INTO epoch, began, highest FROM ${t}_state AS s FOR UPDATE;
    -- Only now: the times of events are in the order of their places.
    now_at := EXTRACT(EPOCH FROM clock_timestamp()) * 1000;
    WITH sent AS (
      DELETE FROM ${t}_outbox AS o RETURNING o.*
    ), events AS (
      SELECT FALSE AS own, s.id AS i, s.channel, s.key, s.data, s.capacity AS cap, s.max_bytes AS most, s.max_age AS age,
        NULL::BIGINT AS previous FROM sent AS s
      UNION ALL
      SELECT TRUE, u.i, u.channel, u.key, u.data, u.cap, u.most, u.age, u.previous
        FROM UNNEST(channels, keys, datas, capacities, sizes, ages, afters) WITH ORDINALITY
          AS u(channel, key, data, cap, most, age, previous, i)
    ), marked AS (
      SELECT v.*, k.seq AS known, ROW_NUMBER() OVER (PARTITION BY v.channel, v.key ORDER BY v.own, v.i) AS nth
      FROM events AS v LEFT JOIN ${t}_keys AS k ON k.channel = v.channel AND k.key = v.key AND k.at >= now_at - max_age
    ), fresh AS (
      SELECT m.own, m.i, m.channel, m.key, m.data, m.cap, m.most, m.age, LENGTH(m.data) AS size,
        began + ROW_NUMBER() OVER (ORDER BY m.own, m.i) AS seq,
        ROW_NUMBER() OVER (PARTITION BY m.channel ORDER BY m.own, m.i) AS n,
        SUM(LENGTH(m.data)) OVER (PARTITION BY m.channel ORDER BY m.own, m.i) AS total
      FROM marked AS m WHERE m.known IS NULL AND (m.key IS NULL OR m.nth = 1) AND (
        m.previous IS NULL OR (
          m.previous = COALESCE((SELECT k.last FROM ${t}_channels AS k WHERE k.channel = m.channel), 0) AND
          NOT EXISTS (SELECT 1 FROM marked AS s WHERE NOT s.own AND s.channel = m.channel AND s.known IS NULL)
        )
      )
    ), counted AS (
      SELECT f.channel, COUNT(*) AS n, SUM(f.size) AS total, MAX(f.seq) AS last FROM fresh AS f GROUP BY f.channel
    ), stored AS (
      INSERT INTO ${t}_channels AS k (channel, n, total, last, floor, at)
      SELECT f.channel, f.n, f.total, f.last, 0, now_at FROM counted AS f
      ON CONFLICT (channel) DO UPDATE SET
        n = k.n + excluded.n, total = k.total + excluded.total, last = excluded.last, at = excluded.at
      RETURNING k.channel, k.n, k.total
    ), inserted AS (
      INSERT INTO ${t} (seq, channel, data, size, at, expires, capacity, max_bytes, n, total)
      SELECT f.seq, f.channel, f.data, f.size, now_at, now_at + f.age,
        COALESCE(f.cap, capacity), COALESCE(f.most, max_bytes), s.n - g.n + f.n, s.total - g.total + f.total
      FROM fresh AS f JOIN stored AS s ON s.channel = f.channel JOIN counted AS g ON g.channel = f.channel
    ), noted AS (
      INSERT INTO ${t}_keys AS k (channel, key, seq, at)
      SELECT f.channel, f.key, f.seq, now_at FROM fresh AS f WHERE f.key IS NOT NULL
      ON CONFLICT (channel, key) DO UPDATE SET seq = excluded.seq, at = excluded.at
    )
    SELECT ARRAY_AGG(COALESCE(m.known, f.seq, g.seq, 0)::DOUBLE PRECISION ORDER BY m.i) FILTER (WHERE m.own), MAX(f.seq)
      INTO places, head
      FROM marked AS m
      LEFT JOIN fresh AS f ON f.own = m.own AND f.i = m.i
      LEFT JOIN fresh AS g ON g.channel = m.channel AND g.key = m.key;
    IF head IS NOT NULL THEN
      -- LIMIT keeps the look at one channel: a plan that is cached would join all channels.
      FOR c IN
        SELECT k.*, e.capacity, e.max_bytes FROM ${t} AS e CROSS JOIN LATERAL (
          SELECT o.channel, o.n, o.total, o.last, o.floor, o.deleted FROM ${t}_channels AS o
          WHERE o.channel = e.channel AND o.last = e.seq LIMIT 1
        ) AS k WHERE e.seq > began AND e.seq <= head
      LOOP
        SELECT l.seq INTO kept FROM ${t} AS l WHERE l.channel = c.channel AND l.seq > c.floor AND (
          l.seq = c.last OR (l.n > c.n - c.capacity AND l.total - l.size >= c.total - c.max_bytes)
        ) ORDER BY l.seq LIMIT 1;
        SELECT l.seq INTO evicted FROM ${t} AS l WHERE l.channel = c.channel AND l.seq > c.floor AND l.seq < kept
          ORDER BY l.seq DESC LIMIT 1;
        evicted := COALESCE(evicted, c.floor);
        gone := GREATEST(c.deleted, LEAST(head - ${tailWindow}, evicted));
        IF evicted > c.floor OR gone > c.deleted THEN
          UPDATE ${t}_channels AS k SET floor = evicted, deleted = gone WHERE k.channel = c.channel;
          highest := GREATEST(highest, evicted);
          -- From the last deletion on: until a vacuum, the index has the rows before it.
          DELETE FROM ${t} AS l WHERE l.channel = c.channel AND l.seq > c.deleted AND l.seq <= gone;
        END IF;
      END LOOP;
      UPDATE ${t}_state SET seq = head, floor = highest;
      PERFORM pg_notify('${t}', head::TEXT);
    END IF;
    places := COALESCE(places, '{}');
  END
  $$`,
  `CREATE OR REPLACE FUNCTION ${t}_sweep(start BIGINT, before DOUBLE PRECISION, expired DOUBLE PRECISION)
  RETURNS BIGINT LANGUAGE plpgsql AS $$
  DECLARE
    deleted BIGINT;
  BEGIN
    PERFORM 1 FROM ${t}_state FOR UPDATE;
    WITH gone AS (
      DELETE FROM ${t} AS l WHERE l.seq IN (${tooOld(t, "start", "before", "expired")})
      RETURNING l.channel, l.seq
    ), floors AS (
      SELECT channel, MAX(seq) AS seq FROM gone GROUP BY channel
    ), raised AS (
      UPDATE ${t}_channels AS k SET floor = GREATEST(k.floor, floors.seq) FROM floors WHERE floors.channel = k.channel
    ), total AS (
      UPDATE ${t}_state AS s SET floor = GREATEST(s.floor, (SELECT MAX(seq) FROM floors))
    )
    SELECT COUNT(*) INTO deleted FROM gone;
    RETURN deleted;
  END
  $$`
]

/**
 * Selects the places of events that are too old: the first 1,000 from a place on without an age of their own, if they
 * are from before a time, and 1,000 that have expired before another time.
 */
export const tooOld = (t: string, start: string, before: string, expired: string): string =>
  `SELECT o.seq FROM (
    SELECT seq, at FROM ${t} WHERE seq >= ${start} AND expires IS NULL ORDER BY seq LIMIT 1000
  ) AS o WHERE o.at < ${before}
  UNION ALL SELECT e.seq FROM (
    SELECT seq FROM ${t} WHERE expires < ${expired} ORDER BY expires LIMIT 1000
  ) AS e`

/** Creates the tables, unless the database has them. */
export const create = (tableName: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const own = sql.onDialectOrElse({ pg: () => pg(tableName), orElse: () => sqlite(tableName) })
    for (const statement of common(tableName)) yield* sql.unsafe(statement)
    const state = { id: 1, epoch: yield* makeEpoch, seq: 0, floor: 0, forgotten: 0 }
    yield* sql`INSERT INTO ${sql.literal(tableName)}_state ${sql.insert(state)} ON CONFLICT (id) DO NOTHING`
    // The last object of SQLite is the trigger, which shows that all others are there.
    for (const statement of own) yield* sql.unsafe(statement)
  })

/** Returns the time of the database, in milliseconds since 1970. */
export const now = (sql: SqlClient.SqlClient): Fragment =>
  sql.onDialectOrElse({
    pg: () => sql`(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)`,
    orElse: () => sql`((julianday('now') - 2440587.5) * 86400000.0)`
  })
