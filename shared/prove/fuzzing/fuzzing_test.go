package fuzzing

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder records a failure instead of failing the test.
type recorder struct {
	testing.TB
	failed string
}

func (s *recorder) Helper() {}
func (s *recorder) Fatalf(format string, args ...any) {
	s.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestBounded(t *testing.T) {
	for size, want := range map[int]bool{100: true, slackBytes / 2: true, 4 * slackBytes: false} {
		s := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Bounded(s, 100, 10, func() { sink = make([]byte, size) })
		}()
		<-done
		if ok := s.failed == ""; ok != want {
			t.Errorf("%d bytes for 100 with factor 10: %t, want %t (%s)", size, ok, want, s.failed)
		}
	}
}

var sink []byte
