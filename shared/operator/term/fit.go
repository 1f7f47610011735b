package term

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// DefaultWidth is the width of a terminal in columns if nothing else is known.
const DefaultWidth = 80

// gap is the space between the columns of a table.
const gap = 2

// Columns returns the width of the output in columns.
func (s Style) Columns() int {
	if s.Width > 0 {
		return s.Width
	}
	return DefaultWidth
}

// Column says how a column of a table gives way when the table is too wide.
type Column struct {
	// Optional columns are removed. The highest number goes first; 0 stays.
	Optional int
	// Least is the width down to which a column is shortened; 0: it is never shortened.
	Least int
	// Cut means that a text loses its end. Otherwise it loses its middle, because the ends of names
	// and addresses tell them apart.
	Cut bool
}

// Fit returns a table that is at most width columns wide, if its columns allow that. It removes optional
// columns until the others have room, and then shortens the widest of those. There must be a Column for
// each column of the table.
func Fit(rows [][]Cell, width int, columns []Column) [][]Cell {
	widths := widthsOf(rows)
	var kept []int
	for i := range widths {
		kept = append(kept, i)
	}
	for total(kept, func(i int) int { return least(columns[i], widths[i]) }) > width {
		first := slices.MaxFunc(kept, func(a, b int) int { return columns[a].Optional - columns[b].Optional })
		if columns[first].Optional == 0 {
			break
		}
		kept = slices.DeleteFunc(kept, func(i int) bool { return i == first })
	}
	for total(kept, func(i int) int { return widths[i] }) > width {
		spare := func(i int) int { return widths[i] - least(columns[i], widths[i]) }
		widest := slices.MaxFunc(kept, func(a, b int) int {
			return cmp.Or(min(spare(a), 1)-min(spare(b), 1), widths[a]-widths[b])
		})
		if spare(widest) == 0 {
			break
		}
		widths[widest]--
	}
	out := make([][]Cell, len(rows))
	for r, row := range rows {
		for _, i := range kept {
			if i < len(row) {
				out[r] = append(out[r], shorten(row[i], columns[i], widths[i]))
			}
		}
	}
	return out
}

// total returns the width of a table with these columns.
func total(columns []int, width func(int) int) int {
	sum := -gap
	for _, i := range columns {
		sum += width(i) + gap
	}
	return sum
}

// least returns the width down to which a column can be shortened.
func least(c Column, width int) int {
	if c.Least == 0 {
		return width
	}
	return min(c.Least, width)
}

func shorten(c Cell, as Column, width int) Cell {
	if as.Cut {
		c.Text = Cut(c.Text, width)
	} else {
		c.Text = Middle(c.Text, width)
	}
	return c
}

func widthsOf(rows [][]Cell) (widths []int) {
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	return widths
}

// Cut shortens a text to a number of characters. It removes the end.
func Cut(text string, most int) string {
	r := []rune(text)
	if len(r) <= most {
		return text
	}
	return string(r[:max(most-1, 0)]) + "…"
}

// Middle shortens a text to a number of characters. It removes the middle.
func Middle(text string, most int) string {
	r := []rune(text)
	if len(r) <= most {
		return text
	}
	left := max(most-1, 0) / 2
	return string(r[:left]) + "…" + string(r[len(r)-max(most-1-left, 0):])
}

// Wrap breaks a text into lines between words. A word that is wider than a line is shortened in the
// middle.
func Wrap(text string, width int) string {
	var words []Cell
	for _, w := range strings.Fields(text) {
		words = append(words, Cell{Text: w})
	}
	return strings.Join(flow(Style{}, words, width, 1), "\n")
}

// Flow writes parts one after the other, with two spaces between them, and begins a new line when the
// next part does not fit. A part that is wider than a line is shortened in the middle.
func Flow(s Style, parts []Cell, width int) []string { return flow(s, parts, width, gap) }

func flow(s Style, parts []Cell, width, space int) (lines []string) {
	var line strings.Builder
	used := 0
	for _, p := range parts {
		text := Middle(p.Text, width)
		n := utf8.RuneCountInString(text)
		if n == 0 {
			continue
		}
		if used > 0 && used+space+n > width {
			lines, used = append(lines, line.String()), 0
			line.Reset()
		}
		if used > 0 {
			line.WriteString(strings.Repeat(" ", space))
			used += space
		}
		line.WriteString(s.Paint(p.Colour, text))
		used += n
	}
	if used > 0 {
		lines = append(lines, line.String())
	}
	return lines
}

// Bytes formats a number of bytes in a few characters: 512B, 20KiB, 1.5GiB.
func Bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, u := float64(n), 0
	for v >= 1023.5 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u >= 3 && v < 9.95 && v != float64(int(v)) {
		return fmt.Sprintf("%.1f%s", v, units[u])
	}
	return fmt.Sprintf("%.0f%s", v, units[u])
}
