package fuzzing

import (
	"runtime"
	"testing"
)

// slackBytes is what a run may allocate whatever its input is: errors, buffers of
// a stated size, and what other goroutines of the process do meanwhile.
const slackBytes = 1 << 20

// Bounded runs a decoder on an input of n bytes and fails the test if it
// allocated more than factor times that, and 1 MiB. The count is that of all
// allocations, freed or not.
func Bounded(t testing.TB, n int, factor uint64, decode func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decode()
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, factor*uint64(n)+slackBytes; got > most {
		t.Fatalf("%d bytes of input made it allocate %d bytes, at most %d are in order", n, got, most)
	}
}
