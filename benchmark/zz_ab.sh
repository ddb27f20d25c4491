for i in 1 2 3; do timeout 100 npx tsx benchmark/zz_prof.ts 12; done
