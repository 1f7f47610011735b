package term

import (
	"os"
	"testing"
)

func TestTable(t *testing.T) {
	rows := [][]Cell{
		{{Text: "NAME"}, {Text: "N", Right: true}, {Text: "WHY"}},
		{{Text: "├─ a", Colour: Red}, {Text: "12345", Right: true}},
		{{Text: "b"}, {Text: "7", Right: true, Colour: Green}, {Text: "because", Colour: Dim}},
	}
	want := "NAME      N  WHY\n" + "├─ a  12345\n" + "b         7  because\n"
	if got := Table(Style{}, rows); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = "NAME      N  WHY\n" + "\x1b[31m├─ a\x1b[0m  12345\n" + "b         \x1b[32m7\x1b[0m  \x1b[2mbecause\x1b[0m\n"
	if got := Table(Style{Colour: true}, rows); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestNoColourWithoutATerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if StyleOf(f).Colour || IsTerminal(f) {
		t.Error("a file is coloured")
	}
}

func TestPrintable(t *testing.T) {
	if got := Printable("a\x1b[31m\nb\tü\x00"); got != "a\ufffd[31m b ü\ufffd" {
		t.Errorf("got %q", got)
	}
}

func TestOutput(t *testing.T) {
	for _, c := range []struct{ in, coloured, plain string }{
		{"", "", ""},
		{"a\tb\r", "a\tb", "a\tb"},
		{"\x1b[1;38:5:9mred\x1b[0m \x1b[2J\a", "\x1b[1;38:5:9mred\x1b[0m \ufffd[2J\ufffd\x1b[0m", "red \ufffd[2J\ufffd"},
		{"\x1b]0;title\a\x1b[31", "\ufffd]0;title\ufffd\ufffd[31", "\ufffd]0;title\ufffd\ufffd[31"},
		{"\x1b\x1b[m[2J", "\ufffd\x1b[m[2J\x1b[0m", "\ufffd[2J"},
		{"1%\r2%\n\u009b2J\xff", "1%\ufffd2% \ufffd2J\ufffd", "1%\ufffd2% \ufffd2J\ufffd"},
	} {
		if got := (Style{Colour: true}).Output(c.in); got != c.coloured {
			t.Errorf("%q becomes %q with colours, want %q", c.in, got, c.coloured)
		}
		if got := (Style{}).Output(c.in); got != c.plain {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.plain)
		}
	}
}
