package sim

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	seed   = flag.Uint64("seed", 0, "replay this seed and print its transcript")
	seeds  = flag.Int("seeds", 0, "run this many seeds; 0: as many as fit in -budget")
	first  = flag.Uint64("first", 1, "the first seed")
	budget = flag.Duration("budget", 20*time.Second, "how long to run seeds")
)

// transcript runs a seed again and returns the end of its story.
func transcript(cfg Config, lines int) string {
	var all []string
	cfg.Trace = func(line string) { all = append(all, line) }
	Run(cfg)
	head := all[:1]
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(append(head[:1:1], all...), "\n")
}

func TestSeeds(t *testing.T) {
	if *seed != 0 {
		cfg := Config{Seed: *seed, Trace: func(line string) { t.Log(line) }}
		if stats, err := Run(cfg); err != nil {
			t.Fatal(err)
		} else {
			t.Log(stats)
		}
		return
	}
	began := time.Now()
	limit := *budget
	if testing.Short() {
		limit = min(limit, 2*time.Second)
	}
	var total Stats
	n := 0
	for ; *seeds > 0 && n < *seeds || *seeds == 0 && time.Since(began) < limit; n++ {
		s := *first + uint64(n)
		stats, err := Run(Config{Seed: s})
		total.Add(stats)
		if err != nil {
			t.Fatalf("%v\nreplay: go test ./shared/sim -run TestSeeds -seed %d -v\n%s", err, s, transcript(Config{Seed: s}, 60))
		}
	}
	t.Logf("%d seeds in %s: %s", n, time.Since(began).Round(time.Second), total)
}

// TestSameSeedSameRun: a seed is worth something only if it can be replayed.
func TestSameSeedSameRun(t *testing.T) {
	for s := uint64(1); s <= 5; s++ {
		a, b := transcript(Config{Seed: s}, 1<<30), transcript(Config{Seed: s}, 1<<30)
		if a != b {
			t.Fatalf("two runs of seed %d differ", s)
		}
	}
}
