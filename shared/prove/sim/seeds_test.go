package sim

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRecordedSeeds runs the seeds that once found bugs; see testdata/seeds.
func TestRecordedSeeds(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "seeds"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		first, why, _ := strings.Cut(line, " ")
		first, rough := strings.CutPrefix(first, "rough:")
		seed, err := strconv.ParseUint(first, 10, 64)
		if err != nil || why == "" {
			t.Fatalf("invalid line, want a seed and the bug that it found: %s", line)
		}
		n++
		cfg := Config{Seed: seed, Rough: rough}
		if _, err := Run(cfg); err != nil {
			t.Errorf("%v\nthis seed once found: %s\n%s", err, why, strings.Join(Transcript(cfg, 60), "\n"))
		}
	}
	if n == 0 {
		t.Error("testdata/seeds has no seeds")
	}
}
