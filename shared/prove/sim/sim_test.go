package sim

import (
	"flag"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	seed   = flag.Uint64("seed", 0, "replay this seed and print its transcript")
	seeds  = flag.Int("seeds", 0, "run this many seeds; 0: as many as fit in -budget")
	first  = flag.Uint64("first", 1, "the first seed")
	rough  = flag.Bool("rough", false, "make every rare fault likely")
	budget = flag.Duration("budget", 25*time.Second, "how long to run seeds")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSeeds(t *testing.T) {
	if *seed != 0 {
		stats, err := Run(Config{Seed: *seed, Rough: *rough, Trace: func(line string) { t.Log(line) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(stats)
		return
	}
	s := Search{First: *first, Seeds: *seeds, Budget: *budget, Config: Config{Rough: *rough}}
	if testing.Short() {
		s.Budget = min(s.Budget, 2*time.Second)
	}
	if s.Seeds > 0 {
		s.Budget = 0
	}
	found := s.Run(t.Context())
	if v := found.Violation; v != nil {
		t.Fatalf("%v\nreplay: go test ./shared/prove/sim -run TestSeeds -seed %d -v, or dynast sim --seed %d\n%s",
			v, v.Seed, v.Seed, strings.Join(Transcript(Config{Seed: v.Seed, Rough: *rough}, 60), "\n"))
	}
	if found.Stats.Runs == 0 {
		t.Fatal("no seed was run")
	}
	t.Logf("seeds %d to %d in %s: %s\n%s", *first, *first+uint64(found.Stats.Runs)-1, found.Elapsed.Round(time.Second), found.Stats, found.Stats.FaultTable())
}

// TestSameSeedSameRun checks that a seed can be replayed exactly.
func TestSameSeedSameRun(t *testing.T) {
	for s := uint64(1); s <= 5; s++ {
		a, b := Transcript(Config{Seed: s}, 0), Transcript(Config{Seed: s}, 0)
		if len(a) < 100 {
			t.Fatalf("the transcript of seed %d has only %d lines", s, len(a))
		}
		if strings.Join(a, "\n") != strings.Join(b, "\n") {
			t.Fatalf("two runs of seed %d differ", s)
		}
	}
}
