package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// publish replaces the section between its two markers in a Markdown file, and writes the chart
// next to the file.
func publish(path, section, text string, f *figures) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := fmt.Sprintf("<!-- bench.sh: %s -->", section), fmt.Sprintf("<!-- end of %s -->", section)
	before, rest, ok := strings.Cut(string(raw), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no section for the tables: add the lines %q and %q", path, begin, end)
	}
	if f != nil {
		chart := strings.TrimSuffix(path, filepath.Ext(path)) + ".svg"
		if err := renameio.WriteFile(chart, []byte(f.chart()), 0o644); err != nil {
			return err
		}
		text = fmt.Sprintf("![Operations per second, as shares of the fastest](%s)\n\n%s", filepath.Base(chart), text)
	}
	out := before + begin + "\n\n" + strings.TrimSpace(text) + "\n\n" + end + after
	return renameio.WriteFile(path, []byte(out), 0o644)
}

const (
	chartWidth, labelWidth, barsWidth = 760, 230, 440
	barHeight, groupGap               = 14, 12
)

// chart draws the throughput. Each load has a group of bars. The length of a bar is its share of
// the longest bar in the group.
func (f *figures) chart() string {
	systems := []struct{ name, colour string }{{dynastName, "#1f6feb"}, {"etcd-1", "#8b949e"}, {"etcd-3", "#57606a"}, {echoName, "#d0d7de"}}
	var b strings.Builder
	y := 34
	for i, s := range systems {
		fmt.Fprintf(&b, `<rect x="%d" y="8" width="12" height="12" fill="%s"/><text x="%d" y="18">%s</text>`+"\n", labelWidth+i*100, s.colour, labelWidth+i*100+17, s.name)
	}
	for _, l := range f.loads {
		var most float64
		for _, s := range systems {
			if v, ok := spreadOf(f.results[l.title][s.name], perSecond); ok {
				most = max(most, v.median)
			}
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, y+11, l.title)
		for _, s := range systems {
			v, ok := spreadOf(f.results[l.title][s.name], perSecond)
			if !ok {
				continue
			}
			w := v.median / most * barsWidth
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%.0f/s</text>`+"\n",
				labelWidth, y, w, barHeight-2, s.colour, labelWidth+w+4, y+11, v.median)
			y += barHeight
		}
		y += groupGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n", chartWidth, y, b.String())
}
