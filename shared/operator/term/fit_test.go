package term

import (
	"strings"
	"testing"
	"time"
)

func TestFit(t *testing.T) {
	rows := func() [][]Cell {
		return [][]Cell{
			{{Text: "NAME"}, {Text: "N", Right: true}, {Text: "M"}, {Text: "NOTE"}},
			{{Text: "a-long-name/1"}, {Text: "1", Right: true}, {Text: "22"}, {Text: "a note of five words"}},
			{{Text: "b"}},
		}
	}
	columns := []Column{{Least: 7}, {Optional: 2}, {Optional: 1}, {Least: 6, Cut: true}}
	for width, want := range map[int]string{
		99: "NAME           N  M   NOTE\na-long-name/1  1  22  a note of five words\nb\n",
		30: "NAME        N  M   NOTE\na-lo…ame/1  1  22  a note of …\nb\n",
		20: "NAME     M   NOTE\na-l…e/1  22  a note…\nb\n",
		3:  "NAME     NOTE\na-l…e/1  a not…\nb\n",
	} {
		got := Table(Style{}, Fit(rows(), width, columns))
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%d columns: got\n%s\nwant\n%s", width, got, want)
		}
		for _, l := range strings.Split(got, "\n") {
			if len([]rune(l)) > max(width, 15) {
				t.Errorf("%d columns: %q", width, l)
			}
		}
	}
}

func TestShortTexts(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Middle("127.0.0.1:7400", 14), "127.0.0.1:7400"}, {Middle("127.0.0.1:7400", 9), "127.…7400"}, {Middle("abc", 1), "…"},
		{Cut("abc", 3), "abc"}, {Cut("abcd", 3), "ab…"},
		{Bytes(0), "0B"}, {Bytes(1023), "1023B"}, {Bytes(34 << 20), "34MiB"}, {Bytes(1<<30 + 1<<29), "1.5GiB"}, {Bytes(2 << 30), "2GiB"}, {Bytes(1 << 60), "1EiB"},
		{Bytes(1<<20 - 1), "1MiB"}, {Bytes(1<<64 - 1), "16EiB"},
		{Age(-time.Second), "0s"}, {Age(65 * time.Second), "1m5s"}, {Age(47*time.Hour + 59*time.Minute), "47h59m"}, {Age(200 * time.Hour), "8d"},
		{strings.Join(Flow(Style{}, []Cell{{Text: "one"}, {Text: ""}, {Text: "two"}, {Text: "three"}, {Text: "a-long-part"}}, 8), "|"), "one  two|three|a-l…part"},
		{Wrap("nothing runs in /a-path/with-hyphens; 'dynast up' starts it", 24), "nothing runs in\n/a-path/with-hyphens;\n'dynast up' starts it"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
