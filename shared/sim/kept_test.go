package sim

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestKeptSeeds runs the seeds at which bugs would show that were there once; see
// testdata/seeds.
func TestKeptSeeds(t *testing.T) {
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
		seed, err := strconv.ParseUint(first, 10, 64)
		if err != nil || why == "" {
			t.Fatalf("want a seed and the reason why it is kept, not: %s", line)
		}
		n++
		if _, err := Run(Config{Seed: seed}); err != nil {
			t.Errorf("%v\nkept because: %s\n%s", err, why, strings.Join(Transcript(Config{Seed: seed}, 60), "\n"))
		}
	}
	if n == 0 {
		t.Error("no seed is kept")
	}
}
