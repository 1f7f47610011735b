package top

import (
	"fmt"
	"math"
	"strings"

	"github.com/dynast-io/dynast/shared/operator/term"
)

// blocks are characters that are filled from below, in steps of one eighth.
var blocks = []rune(" ▁▂▃▄▅▆▇█")

// bars draws values as columns, with the newest value at the right. Each row has width
// characters. A NaN value is a gap.
func bars(values []float64, width, height int, top float64) []string {
	values = values[max(0, len(values)-width):]
	rows := make([]string, height)
	for r := range rows {
		var b strings.Builder
		b.WriteString(strings.Repeat(" ", width-len(values)))
		floor := float64(height-1-r) * 8 // eighths below this row
		for _, v := range values {
			eighths := 0.0
			if v > 0 && top > 0 { // false for NaN, too
				eighths = max(1, math.Round(min(v/top, 1)*float64(height)*8))
			}
			b.WriteRune(blocks[int(min(max(eighths-floor, 0), 8))])
		}
		rows[r] = b.String()
	}
	return rows
}

// axis draws the line below a graph. It marks takeovers and deaths at the second when they happened.
func axis(samples []sample, width int, s term.Style) string {
	samples = samples[max(0, len(samples)-width):]
	var b strings.Builder
	b.WriteString(s.Paint(term.Dim, strings.Repeat("─", width-len(samples))))
	for _, x := range samples {
		switch {
		case x.takeover:
			b.WriteString(s.Paint(term.Yellow, "▲"))
		case x.deaths > 0:
			b.WriteString(s.Paint(term.Red, "×"))
		default:
			b.WriteString(s.Paint(term.Dim, "─"))
		}
	}
	return b.String()
}

// ceiling returns a round number that is at least as large as every value, for the top of a graph.
func ceiling(values []float64, least float64) float64 {
	most := least
	for _, v := range values {
		if v > most {
			most = v
		}
	}
	p := math.Pow(10, math.Floor(math.Log10(most)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*p >= most {
			return f * p
		}
	}
	return most
}

// number formats a number in a few characters.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v >= 1e6:
		return fmt.Sprintf("%.1fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// millis formats seconds as milliseconds.
func millis(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.2fms", v*1000)
}
