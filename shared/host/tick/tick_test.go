package tick

import (
	"testing"
	"time"
)

func TestUntil(t *testing.T) {
	for _, c := range []struct{ now, every, want time.Duration }{
		{0, 4, 4}, {1, 4, 3}, {3, 4, 1}, {4, 4, 4}, {9, 4, 3}, {-1, 4, 1}, {-4, 4, 4}, {-7, 4, 3},
	} {
		if got := until(c.now, c.every); got != c.want {
			t.Errorf("at %d, every %d: %d, want %d", c.now, c.every, got, c.want)
		}
	}
	if d := Until(time.Hour); d <= 0 || d > time.Hour {
		t.Errorf("%s to the next hour", d)
	}
}
