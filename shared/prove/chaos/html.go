package chaos

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"seconds": func(ms int64) string { return fmt.Sprintf("%.1f s", float64(ms)/1000) },
	"ms":      func(v float64) string { return fmt.Sprintf("%.1f ms", v) },
}).Parse(page))

// The picture has its own unit of width and three rows. Latency and outages use a logarithmic
// scale from 0.1 ms to 100 s.
const (
	pictureWidth = 1160
	// leftMargin and rightMargin have room for the labels of the scales.
	leftMargin, rightMargin = 60, 30
	rowHeight               = 150
	lowestMS                = 0.1
	decades                 = 6
)

// picture is the timeline as shapes.
type picture struct {
	// Left is where the picture begins, and Whole is its width with the margins.
	Left, Whole int
	Width, Row  int
	Seconds     []tick
	Decades     []tick
	Bars        []bar // acknowledged changes
	MaxRate     int   // per second
	Worst       []bar // latency
	Median      string
	Faults      []mark
}

type tick struct {
	At   float64
	Text string
}

type bar struct{ X, Y, W, H float64 }

type mark struct {
	X, Y, H      float64
	Color, Title string
}

// palette has a colour for each kind. The first ones are distinguishable with colour blindness
// (Okabe and Ito).
var palette = []string{"#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#6b6b6b", "#8c564b", "#c62848", "#7a9a01",
	"#1b6e8a", "#b58900", "#5f4690", "#38a6a5", "#94346e", "#73af48", "#e17c05", "#994e95"}

func colorOf(kind string) string { return palette[max(slices.Index(kinds(), kind), 0)%len(palette)] }

// height is the distance of a duration from the bottom of its row.
func height(ms float64) float64 {
	return rowHeight * min(max(math.Log10(max(ms, lowestMS)/lowestMS)/decades, 0.005), 1)
}

func (r *Report) picture() picture {
	p := picture{Left: -leftMargin, Whole: leftMargin + pictureWidth + rightMargin, Width: pictureWidth, Row: rowHeight}
	total := float64(max(r.DurationMS, 1))
	x := func(ms int64) float64 { return float64(ms) / total * pictureWidth }
	step := niceStep(total / 1000)
	for s := 0.0; s*1000 <= total; s += step {
		p.Seconds = append(p.Seconds, tick{x(int64(s * 1000)), fmt.Sprintf("%gs", s)})
	}
	for d := range decades + 1 {
		ms := lowestMS * math.Pow(10, float64(d))
		p.Decades = append(p.Decades, tick{rowHeight - height(ms), time.Duration(ms * float64(time.Millisecond)).String()})
	}
	buckets := coarser(r.Timeline)
	width := pictureWidth / 2.0
	if len(buckets) > 0 {
		width = math.Max(float64(spanOf(r.Timeline))/total*pictureWidth, 1)
	}
	most := 1
	for _, b := range buckets {
		most = max(most, b.Acknowledged)
	}
	p.MaxRate = most * 1000 / max(spanOf(r.Timeline), 1)
	for _, b := range buckets {
		h := float64(b.Acknowledged) / float64(most) * rowHeight
		p.Bars = append(p.Bars, bar{x(b.AtMS), rowHeight - h, width, h})
		h = height(b.WorstMS)
		p.Worst = append(p.Worst, bar{x(b.AtMS), rowHeight - h, width, h})
		p.Median += fmt.Sprintf("%.1f,%.1f ", x(b.AtMS)+width/2, rowHeight-height(b.MedianMS))
	}
	for _, f := range r.Faults {
		h := height(f.OutageMS)
		p.Faults = append(p.Faults, mark{x(f.AtMS), rowHeight - h, h, colorOf(f.Kind),
			fmt.Sprintf("%.1f s: %s: %s; %.1f ms without an acknowledged change", float64(f.AtMS)/1000, f.Label, f.What, f.OutageMS)})
	}
	return p
}

// niceStep returns a round step in seconds that divides a time axis into about ten parts.
func niceStep(seconds float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(max(seconds, 1)/10)))
	for _, f := range []float64{1, 2, 5, 10} {
		if seconds/(step*f) <= 12 {
			return step * f
		}
	}
	return step * 10
}

// spanOf returns the length in milliseconds of the buckets that coarser makes.
func spanOf(buckets []Bucket) int {
	if len(buckets) == 0 {
		return bucketMS
	}
	spans := int(buckets[len(buckets)-1].AtMS/bucketMS) + 1
	return bucketMS * (1 + (spans-1)/(pictureWidth/2))
}

// coarser merges buckets until no more are left than the picture can show.
func coarser(buckets []Bucket) []Bucket {
	span := int64(spanOf(buckets))
	var out []Bucket
	for _, b := range buckets {
		at := b.AtMS / span * span
		if len(out) == 0 || out[len(out)-1].AtMS != at {
			out = append(out, Bucket{AtMS: at})
		}
		o := &out[len(out)-1]
		// The weighted mean of medians is good enough for a line.
		o.MedianMS = (o.MedianMS*float64(o.Acknowledged) + b.MedianMS*float64(b.Acknowledged)) / float64(max(o.Acknowledged+b.Acknowledged, 1))
		o.Acknowledged += b.Acknowledged
		o.WorstMS = max(o.WorstMS, b.WorstMS)
	}
	return out
}

// serviceLines returns the counts of services as lines, or nothing.
func (r *Report) serviceLines() []string {
	if r.Services == nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(r.Services.text()), "\n")
}

// HTML writes the report as one self-contained page.
func (r *Report) HTML(out io.Writer) error {
	type row struct {
		Name, Meaning string
		Findings      int
	}
	var rows []row
	for _, c := range r.checks() {
		rows = append(rows, row{c.name, c.meaning, r.failed(c.name)})
	}
	type legend struct{ Kind, Color string }
	var legends []legend
	for _, k := range kinds() {
		if slices.ContainsFunc(r.Faults, func(f Injected) bool { return f.Kind == k }) {
			legends = append(legends, legend{k, colorOf(k)})
		}
	}
	if err := pageTemplate.Execute(out, map[string]any{"R": r, "Services": r.serviceLines(), "P": r.picture(), "Checks": rows, "Legend": legends, "Faults": r.Weights.String()}); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
