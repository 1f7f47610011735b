package chaos

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A trend is found under noise, and noise is not taken for a trend.
func TestGrowth(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	series := func(f func(i int) float64) []float64 {
		out := make([]float64, 200)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	for name, c := range map[string]struct {
		samples []float64
		grows   bool
	}{
		"constant":        {series(func(int) float64 { return 40 }), false},
		"noise":           {series(func(int) float64 { return 40 + 10*rng.Float64() }), false},
		"a leak":          {series(func(i int) float64 { return 40 + float64(i)/4 + 20*rng.Float64() }), true},
		"falling":         {series(func(i int) float64 { return 400 - float64(i) }), false},
		"a full cache":    {series(func(i int) float64 { return min(40+4*float64(i), 140) + rng.Float64() }), false},
		"one outlier":     {append(series(func(int) float64 { return 40 + rng.Float64() }), 1e6), false},
		"too small":       {series(func(i int) float64 { return 40 + float64(i)/40 }), false},
		"too few samples": {series(func(i int) float64 { return float64(i) })[:minSamples-1], false},
	} {
		if total, grows := Grows(c.samples, fdSlack); grows != c.grows {
			t.Errorf("%s: grows: %t (by %.1f, %+v)", name, grows, total, TrendOf(c.samples))
		}
	}
	leaking := []Sample{}
	for i := range 100 {
		leaking = append(leaking, Sample{LeaderFDs: 30 + i, LeaderRSSBytes: uint64(50<<20 + i<<22)})
	}
	if wrong, _ := CheckUsage(leaking); len(wrong) != 2 {
		t.Errorf("found: %q", wrong)
	}
}

func TestOutagesAreAttributedToTheirFault(t *testing.T) {
	const ms = int64(time.Millisecond)
	acks := []ack{{0, 10 * ms}, {0, 20 * ms}, {0, 120 * ms}, {0, 130 * ms}, {0, 140 * ms}, {0, 640 * ms}, {0, 650 * ms}}
	faults := []Injected{{at: 21 * ms}, {at: 145 * ms}, {at: 645 * ms}}
	outages(faults, acks, 648*ms)
	for i, want := range []float64{100, 500, 8} {
		if faults[i].OutageMS != want {
			t.Errorf("fault %d: %.1f ms, want %.1f", i, faults[i].OutageMS, want)
		}
	}
	if got := silence(acks, 0, 1300*ms); got != 650*time.Millisecond {
		t.Errorf("silence of %s", got)
	}
}

func TestWeights(t *testing.T) {
	w, err := ParseWeights("default, kill-all=7,promote=0", Weights{KillLeader: 5})
	if err != nil || !reflect.DeepEqual(w, Weights{KillLeader: 5, KillAll: 7, Promote: 0}) || w.String() != "kill-leader=5,kill-all=7" {
		t.Errorf("%v, %v", w, err)
	}
	if again, err := ParseWeights(w.String(), nil); err != nil || again.String() != w.String() {
		t.Errorf("read again: %v, %v", again, err)
	}
	rng, counts := rand.New(rand.NewPCG(1, 2)), map[string]int{}
	for range 12000 {
		counts[w.pick(rng)]++
	}
	if len(counts) != 2 || counts[KillAll] < 6500 || counts[KillAll] > 7500 {
		t.Errorf("picked %v", counts)
	}
	for text, want := range map[string]string{"": `fault ""`, "kill-ledaer": "kill-leader", "kill-all=x": `"x"`, "kill-all=-1": "0 to 1000", "kill-all=0": "at least one must have a weight above 0"} {
		if _, err := ParseWeights(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestImpossibleFaultsAreReported(t *testing.T) {
	all := Weights{}
	for _, f := range faults() {
		all[f.kind] = 1
	}
	w, left := possible(all, &cluster{followers: 2}, nil, io.EOF, false)
	if got, want := w.String(), SignalWeights(); len(w) != len(want)-1 || len(w)+len(left) != len(all) { // this one cannot hand over
		t.Errorf("to a running cluster: %s; left out %q", got, left)
	}
	for _, k := range []string{KillAll, RestartAll, FillDisk, CorruptFollower, Promote} {
		if !strings.Contains(strings.Join(left, "\n"), k+": ") {
			t.Errorf("%s is not reported as left out: %q", k, left)
		}
	}
	w, left = possible(all, &cluster{own: true, followers: 2}, nil, io.EOF, true)
	ofHosts := 0
	for _, l := range left {
		if strings.Contains(l, "only possible with several hosts") {
			ofHosts++
		}
	}
	if len(w) != len(all)-2-ofHosts || !strings.Contains(strings.Join(left, "\n"), FillDisk+": EOF") {
		t.Errorf("to an own cluster: %s; left out %q", w, left)
	}
}

// failedReport returns the report of a failed run.
func failedReport() *Report {
	r := newReport(Config{Seed: 42}, time.Unix(1700000000, 0))
	r.Weights = Weights{KillLeader: 1}
	r.addFaults([]Injected{{AtMS: 100, Kind: KillLeader, Label: KillLeader, What: "<leader> & co", OutageMS: 12}, {AtMS: 600, Kind: KillLeader, Label: KillLeader, OutageMS: 20}, {AtMS: 900, Kind: KillAll, Label: KillAll, OutageMS: 900}})
	r.addTimeline(timeline([]ack{{0, 1e6}, {2e8, 3e8}, {19e8, 20e8}}, 0))
	h := NewHistory()
	h.Add(op(0, 1, Request{Kind: Put, To: "1"}, Answer{}))
	h.Add(op(0, 1, Request{Kind: Put, To: "2"}, Answer{Unknown: true}))
	h.addRefused(Put)
	h.addFailed(Get)
	r.addOperations(h)
	r.Findings = []Finding{{Check: CheckReplicas, Text: "slot 2 <differs>", AtMS: 700}}
	r.Kept = "/tmp/kept"
	r.close(3 * time.Second)
	return r
}

func TestReportAsText(t *testing.T) {
	r := failedReport()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"verdict: failed", "FAILED  replicas: 1 findings", "ok      linearizable", "slot 2 <differs>", "/tmp/kept", "--seed 42"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if r.Passed() || len(r.FaultStats) != 2 || r.FaultStats[1].Count != 2 || r.FaultStats[1].WorstOutageMS != 20 {
		t.Errorf("%+v", r.FaultStats)
	}
	if got := *r.Operations[Put]; got != (Outcomes{OK: 1, Refused: 1, Unknown: 1}) || r.Operations[Get].Failed != 1 {
		t.Errorf("operations: %+v, %+v", got, r.Operations[Get])
	}
}

// The page is well-formed, loads nothing from elsewhere, and escapes the texts of a run.
func TestReportAsAPage(t *testing.T) {
	var out bytes.Buffer
	if err := failedReport().HTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{"<svg", "&lt;leader&gt; &amp; co", "slot 2 &lt;differs&gt;", "kill-leader", "900.0 ms"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, never := range []string{"http://", "https://", "<script", "src=", "NaN", "Inf", "%!", "ZgotmplZ"} {
		if strings.Contains(page, never) {
			t.Errorf("%q is in the page", never)
		}
	}
	// Both ends of the scale, with half of a label beside each tick, are inside the picture.
	p := failedReport().picture()
	if last := p.Seconds[len(p.Seconds)-1]; last.At+20 > float64(p.Left+p.Whole) || p.Seconds[0].At-20 < float64(p.Left) ||
		!strings.Contains(page, fmt.Sprintf(`viewBox="%d 0 %d `, p.Left, p.Whole)) {
		t.Errorf("the picture from %d, %d wide, clips its scale: %+v", p.Left, p.Whole, p.Seconds)
	}
	svg := page[strings.Index(page, "<svg") : strings.Index(page, "</svg>")+len("</svg>")]
	d := xml.NewDecoder(strings.NewReader(svg))
	rects := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the picture: %v\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			rects++
		}
	}
	if want := 3 + 2*3; rects != want { // faults, and two rows of buckets
		t.Errorf("%d bars, want %d", rects, want)
	}
	var empty bytes.Buffer
	if err := newReport(Config{}, time.Now()).HTML(&empty); err != nil || strings.Contains(empty.String(), "NaN") {
		t.Errorf("the page of an empty run: %v", err)
	}
}

// The report of a soak of any length stays bounded.
func TestReportOfASoakIsBounded(t *testing.T) {
	r := newReport(Config{}, time.Now())
	const perRound = maxRetained / 50
	var faults []Injected
	var buckets []Bucket
	for i := range 3 * maxRetained {
		at := int64(i) * bucketMS
		r.addSample(Sample{AtMS: at})
		faults = append(faults, Injected{AtMS: at, Label: "x", OutageMS: float64(i)})
		buckets = append(buckets, Bucket{AtMS: at, Acknowledged: 2, WorstMS: 1})
		if len(faults) == perRound {
			r.addFaults(faults)
			r.addTimeline(buckets)
			faults, buckets = nil, nil
		}
	}
	r.close(3 * maxRetained * bucketMS * time.Millisecond)
	if len(r.Usage) > maxRetained || len(r.Faults) > maxRetained || len(r.Timeline) > maxRetained+1 {
		t.Errorf("retained: %d samples, %d faults, %d buckets", len(r.Usage), len(r.Faults), len(r.Timeline))
	}
	if s := r.FaultStats[0]; s.Count != 3*maxRetained || s.WorstOutageMS != 3*maxRetained-1 {
		t.Errorf("faults: %+v", s)
	}
	sum := 0
	for _, b := range r.Timeline {
		sum += b.Acknowledged
	}
	if sum != 6*maxRetained || r.Usage[0].AtMS != 0 {
		t.Errorf("%d changes in the timeline, the first sample is of %d", sum, r.Usage[0].AtMS)
	}
}
