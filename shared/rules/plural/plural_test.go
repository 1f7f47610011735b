package plural

import "testing"

func TestCount(t *testing.T) {
	for _, c := range []struct {
		n          int
		noun, want string
	}{
		{0, "service", "0 services"}, {1, "service", "1 service"}, {2, "process", "2 processes"}, {1, "process", "1 process"},
		{3, "entry", "3 entries"}, {2, "key", "2 keys"}, {-1, "day", "-1 days"},
	} {
		if got := Count(c.n, c.noun); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if Are(1) != "is" || Are(0) != "are" || Are(2) != "are" {
		t.Error("the verb is wrong")
	}
}
