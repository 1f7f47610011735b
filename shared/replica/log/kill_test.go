package log

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const childSegmentBytes = 64 << 10

// appendUntilKilled runs in the child. It appends batches and reports the last index of each
// when Append has returned. Meanwhile it syncs and compacts.
func appendUntilKilled(dir string) int {
	l, err := Create(Options{Dir: dir, SegmentBytes: childSegmentBytes}, Position{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for {
			p, err := l.Sync()
			if err == nil && p.Index > 500 {
				err = l.Compact(p.Index-400, Position{Epoch: 1, Index: p.Index - 400})
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}()
	for next, n := uint64(1), uint64(1); ; n = n%13 + 1 {
		if err := l.Append(testEntries(1, next, next+n-1)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		next += n
		if _, err := os.Stdout.WriteString(strconv.FormatUint(next-1, 10) + "\n"); err != nil {
			return 1
		}
	}
}

// Read finds every entry that a writer had appended before it was killed with SIGKILL.
func TestKilledWriterLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	total := uint64(0)
	for round := range rounds {
		total += killRound(t, round, time.Duration(rng.IntN(150_000))*time.Microsecond)
	}
	t.Logf("%d reported entries, all found", total)
}

func killRound(t *testing.T, round int, life time.Duration) uint64 {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0]) // cancelling sends SIGKILL
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked, first := uint64(0), true
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if acked, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if first {
			first = false
			time.AfterFunc(life, cancel)
		}
	}
	_ = cmd.Wait()
	if complaint.Len() > 0 {
		t.Fatal(complaint.String())
	}
	if acked == 0 {
		t.Fatal("the child reported nothing")
	}
	o := Options{Dir: dir, SegmentBytes: childSegmentBytes}
	after := Position{}
	if acked > 100 {
		after = Position{Epoch: 1, Index: acked - 100}
	}
	es, last, err := Read(dir, after, o)
	if err != nil || last.Index < acked {
		t.Fatalf("round %d: acknowledged %d, found %s: %v", round, acked, last, err)
	}
	sameEntries(t, es, testEntries(1, after.Index+1, last.Index))
	if p, err := LastPosition(dir, o); err != nil || p != last {
		t.Fatal(round, p, err)
	}
	l, err := Open(o, after.Index)
	if err != nil {
		t.Fatal(round, err)
	}
	if l.Last() != last {
		t.Fatal(round, l.Last(), last)
	}
	mustAppend(t, l, testEntries(2, last.Index+1, last.Index+50))
	l = reopen(t, l, after.Index)
	es, err = l.Entries(last.Index+1, last.Index+50, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, es, testEntries(2, last.Index+1, last.Index+50))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return acked
}
