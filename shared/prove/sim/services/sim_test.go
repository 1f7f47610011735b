package services

import (
	"flag"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	seed      = flag.Uint64("seed", 0, "replay this seed and print its transcript")
	seeds     = flag.Int("seeds", 0, "run this many seeds; 0: as many as fit in -budget")
	first     = flag.Uint64("first", 1, "the first seed")
	keepGoing = flag.Bool("keep-going", false, "continue after a seed that breaks a rule")
	lines     = flag.Int("lines", 40, "print this many lines of a transcript")
	budget    = flag.Duration("budget", 10*time.Second, "how long to run seeds")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSeeds(t *testing.T) {
	if *seed != 0 {
		if _, err := Run(Config{Seed: *seed, Trace: func(line string) { t.Log(line) }}); err != nil {
			t.Fatal(err)
		}
		return
	}
	s := Search{First: *first, Seeds: *seeds, Budget: *budget, KeepGoing: *keepGoing}
	if s.Seeds > 0 {
		s.Budget = 0
	} else if testing.Short() {
		s.Budget = 2 * time.Second
	}
	found := s.Run(t.Context())
	for _, v := range found.Violations {
		t.Errorf("%v\nreplay: go test ./shared/prove/sim/services -run TestSeeds -seed %d -v\n%s", v, v.Seed, strings.Join(Transcript(Config{Seed: v.Seed}, *lines), "\n"))
	}
	if found.Stats.Runs == 0 {
		t.Fatal("no seed was run")
	}
	t.Logf("from seed %d: %s", *first, found.Stats)
}

// TestSameSeedSameRun checks that a seed can be replayed exactly.
func TestSameSeedSameRun(t *testing.T) {
	for s := uint64(1); s <= 20; s++ {
		a, b := Transcript(Config{Seed: s}, 0), Transcript(Config{Seed: s}, 0)
		if len(a) < 10 {
			t.Fatalf("the transcript of seed %d has only %d lines", s, len(a))
		}
		if strings.Join(a, "\n") != strings.Join(b, "\n") {
			t.Fatalf("two runs of seed %d differ", s)
		}
	}
}

// TestRecordedSeeds runs seeds that once found bugs in the rules or in the oracle.
func TestRecordedSeeds(t *testing.T) {
	for seed, found := range map[uint64]string{
		1:          "a second Clear killed the next process",
		13:         "a leader died in the restart of one instance, and all were restarted",
		1486:       "an event that changed nothing swallowed the end of a delay",
		4035:       "a program that was changed while it ended was given up",
		21067:      "the oracle counted the READY of a dead program as progress of a rolling restart",
		854:        "the oracle kept the wishes of a boot whose first leader died at once",
		44718:      "the simulated driver kept the deadline of a rolling restart over a boot",
		2979492410: "the simulated operator stopped everything just before the faults ended, and nobody started it again",
		38856:      "a late result of an alive check that the configuration had removed ended a program",
	} {
		if _, err := Run(Config{Seed: seed}); err != nil {
			t.Errorf("%v\nthis seed once found: %s", err, found)
		}
	}
}
