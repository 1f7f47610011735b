package fuzzing

import (
	"runtime"
	"testing"
)

// slackBytes is what a run may allocate for any input. It covers errors, buffers of a fixed size,
// and the work of other goroutines at the same time.
const slackBytes = 1 << 20

// Bounded runs a decoder on an input of n bytes. It fails the test if the decoder allocated more
// than factor times n plus 1 MiB. All allocations count, freed or not.
func Bounded(t testing.TB, n int, factor uint64, decode func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decode()
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, factor*uint64(n)+slackBytes; got > most {
		t.Fatalf("an input of %d bytes made the decoder allocate %d bytes, want at most %d", n, got, most)
	}
}
