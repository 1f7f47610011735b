package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

func op(call, ret int64, r Request, a Answer) porcupine.Operation {
	if r.Key == "" {
		r.Key = "k"
	}
	return porcupine.Operation{Input: r, Call: call, Output: a, Return: ret}
}

// TestCheckLinearFindsStaleReads checks that an answer that no single process could have given is
// found, and that an unusual but valid answer is not.
func TestCheckLinearFindsStaleReads(t *testing.T) {
	unknown := op(0, 50, Request{Kind: Put, To: "late"}, Answer{Unknown: true})
	first := op(10, 20, Request{Kind: Put, To: "1"}, Answer{})
	second := op(30, 40, Request{Kind: Exchange, From: "1", To: "2"}, Answer{Was: "1"})
	for name, c := range map[string]struct {
		last porcupine.Operation
		want porcupine.CheckResult
	}{
		"fresh":                {op(50, 60, Request{Kind: Get}, Answer{Was: "2"}), porcupine.Ok},
		"stale":                {op(50, 60, Request{Kind: Get}, Answer{Was: "1"}), porcupine.Illegal},
		"at the same time":     {op(35, 60, Request{Kind: Get}, Answer{Was: "1"}), porcupine.Ok},
		"an acknowledged loss": {op(50, 60, Request{Kind: Get}, Answer{}), porcupine.Illegal},
		"late effect":          {op(50, 60, Request{Kind: Get}, Answer{Was: "late"}), porcupine.Ok},
		"never written":        {op(50, 60, Request{Kind: Get}, Answer{Was: "3"}), porcupine.Illegal},
		"a deletion's answer":  {op(50, 60, Request{Kind: Delete}, Answer{Was: "1"}), porcupine.Illegal},
		"txn on an old value":  {op(50, 60, Request{Kind: Exchange, From: "1", To: "4"}, Answer{Was: "1"}), porcupine.Illegal},
	} {
		l := CheckLinear([]porcupine.Operation{unknown, first, second, c.last}, time.Minute)
		if l.Result != c.want {
			t.Errorf("%s: %s, want %s", name, l.Result, c.want)
		}
		if explained := strings.Contains(l.Explain(), "k: no order"); explained != (c.want == porcupine.Illegal) {
			t.Errorf("%s: wrong explanation\n%s", name, l.Explain())
		}
	}
}

// An operation with an unknown outcome happens once, at any time after its call, or never.
func TestUnknownOutcomes(t *testing.T) {
	write := op(0, 10, Request{Kind: Put, To: "1"}, Answer{})
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want porcupine.CheckResult
	}{
		"a delete long after its call": {[]porcupine.Operation{
			op(20, 30, Request{Kind: Delete}, Answer{Unknown: true}),
			op(40, 50, Request{Kind: Get}, Answer{Was: "1"}),
			op(60, 70, Request{Kind: Get}, Answer{}),
		}, porcupine.Ok},
		"a delete before its call": {[]porcupine.Operation{
			op(15, 18, Request{Kind: Get}, Answer{}),
			op(20, 30, Request{Kind: Delete}, Answer{Unknown: true}),
		}, porcupine.Illegal},
		"a write before its call": {[]porcupine.Operation{
			op(15, 18, Request{Kind: Get}, Answer{Was: "2"}),
			op(20, 30, Request{Kind: Put, To: "2"}, Answer{Unknown: true}),
		}, porcupine.Illegal},
		"a write that comes and goes": {[]porcupine.Operation{
			op(20, 30, Request{Kind: Put, To: "2"}, Answer{Unknown: true}),
			op(40, 50, Request{Kind: Get}, Answer{Was: "2"}),
			op(60, 70, Request{Kind: Get}, Answer{Was: "1"}),
		}, porcupine.Illegal},
		"a write that happens twice": {[]porcupine.Operation{
			op(20, 30, Request{Kind: Put, To: "2"}, Answer{Unknown: true}),
			op(40, 50, Request{Kind: Put, To: "3"}, Answer{Was: "2"}),
			op(60, 70, Request{Kind: Get}, Answer{Was: "2"}),
		}, porcupine.Illegal},
	} {
		if l := CheckLinear(append([]porcupine.Operation{write}, c.ops...), time.Minute); l.Result != c.want {
			t.Errorf("%s: %s, want %s", name, l.Result, c.want)
		}
	}
}

func TestRevisions(t *testing.T) {
	change := func(call, ret, revision int64) porcupine.Operation {
		return op(call, ret, Request{Kind: Put, To: "v"}, Answer{Revision: revision})
	}
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want int
	}{
		"in order":         {[]porcupine.Operation{change(0, 10, 2), change(20, 30, 3)}, 0},
		"at the same time": {[]porcupine.Operation{change(0, 25, 3), change(20, 30, 2)}, 0},
		"back in time":     {[]porcupine.Operation{change(0, 10, 3), change(20, 30, 2)}, 1},
		"used twice":       {[]porcupine.Operation{change(0, 10, 2), change(20, 30, 2)}, 1},
	} {
		if wrong := CheckRevisions(c.ops); len(wrong) != c.want {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}

// sampleHistory returns a history with its events: changes with an answer, and two changes with
// an unknown outcome that happened.
func sampleHistory() ([]porcupine.Operation, []Event) {
	ops := []porcupine.Operation{
		op(0, 10, Request{Kind: Put, To: "1"}, Answer{Revision: 5}),
		op(20, 30, Request{Kind: Exchange, From: "1", To: "2"}, Answer{Was: "1", Revision: 6}),
		op(40, 50, Request{Kind: Delete}, Answer{Unknown: true}),
		op(60, 70, Request{Kind: Put, To: "3"}, Answer{Unknown: true}),
		op(80, 90, Request{Kind: Put, Key: "lease/x", To: "x"}, Answer{Revision: 9}),
	}
	events := []Event{
		{Revision: 5, Key: "k", Value: "1"},
		{Revision: 6, Key: "k", Value: "2", Prev: "1", PrevRevision: 5},
		{Revision: 7, Delete: true, Key: "k", Prev: "2", PrevRevision: 6},
		{Revision: 8, Key: "k", Value: "3"},
		{Revision: 9, Key: "lease/x", Value: "x"},
		{Revision: 10, Delete: true, Key: "lease/x", Prev: "x", PrevRevision: 9},
	}
	return ops, events
}

func TestWrongEventsAreFound(t *testing.T) {
	leased := func(key string) bool { return strings.HasPrefix(key, "lease/") }
	for name, c := range map[string]struct {
		spoil func([]Event) []Event
		want  string // part of one of the findings; empty: no finding
	}{
		"correct":              {func(e []Event) []Event { return e }, ""},
		"one is missing":       {func(e []Event) []Event { return slices.Delete(e, 1, 2) }, "no event for"},
		"one comes twice":      {func(e []Event) []Event { return slices.Insert(e, 2, e[1]) }, "reported twice"},
		"an old one again":     {func(e []Event) []Event { return append(e, e[0]) }, "reported twice"},
		"in the wrong order":   {func(e []Event) []Event { e[4], e[3] = e[3], e[4]; return e }, "reported after revision 9"},
		"another value":        {func(e []Event) []Event { e[1].Value = "7"; return e }, "differs from the acknowledged change"},
		"wrong previous value": {func(e []Event) []Event { e[2].Prev = "1"; return e }, "the previous value was"},
		"never written":        {func(e []Event) []Event { e[3].Value = "4"; return e }, "no operation explains this event"},
		"an unknown one twice": {func(e []Event) []Event {
			return append(e, Event{Revision: 11, Delete: true, Key: "k", Prev: "3", PrevRevision: 8}, Event{Revision: 12, Key: "k", Value: "3"})
		}, "no operation explains this event"},
	} {
		ops, events := sampleHistory()
		wrong := CheckEvents(ops, c.spoil(events), leased)
		if found := slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, c.want) }); len(wrong) > 0 != (c.want != "") || !found && c.want != "" {
			t.Errorf("%s: found %q, want %q", name, wrong, c.want)
		}
	}
	ops, events := sampleHistory()
	if wrong := CheckEvents(ops, events, nil); len(wrong) != 1 || !strings.Contains(wrong[0], "no operation explains this event") {
		t.Errorf("the key of no lease disappeared: found %q", wrong)
	}
}

func TestSameEventsFindsDifferences(t *testing.T) {
	_, all := sampleHistory()
	deletes := func(e Event) bool { return e.Delete }
	for name, c := range map[string]struct {
		saw  []Event
		want func(Event) bool
		say  string
	}{
		"the same":       {all, nil, ""},
		"filtered":       {[]Event{all[2], all[5]}, deletes, ""},
		"a gap":          {slices.Delete(slices.Clone(all), 2, 3), nil, "event 2 of 5"},
		"an early end":   {all[:4], nil, "the first missing event is revision 9"},
		"one too many":   {append(slices.Clone(all), all[5]), nil, "the first extra event is revision 10"},
		"not filtered":   {all, deletes, "event 0 of 6"},
		"doubled inside": {slices.Insert(slices.Clone(all), 1, all[0]), nil, "event 1 of 7"},
	} {
		wrong := strings.Join(SameEvents(&Observer{Name: "w", Want: c.want, saw: c.saw}, all), "\n")
		if !strings.Contains(wrong, c.say) || (wrong != "") != (c.say != "") {
			t.Errorf("%s: found %q, want %q", name, wrong, c.say)
		}
	}
	// Events after the last compared revision are ignored.
	if got := eventsUntil(all, 7); len(got) != 3 || len(eventsUntil(all, 10)) != len(all) {
		t.Errorf("events until revision 7: %v", got)
	}
	if wrong := sameUntil(&Observer{saw: all}, all[:3], 7); wrong != nil {
		t.Errorf("events after the last revision were compared: %q", wrong)
	}
}

func TestCheckLeasesFindsEarlyAndLateEnds(t *testing.T) {
	const s = int64(time.Second)
	for name, c := range map[string]struct {
		lease Lease
		want  string
	}{
		"kept":                               {Lease{Kept: true, TTL: 10 * time.Second, Renewed: 58 * s, Until: 60 * s}, ""},
		"kept and gone":                      {Lease{Kept: true, TTL: 10 * time.Second, Renewed: 50 * s, Gone: 55 * s, Until: 60 * s}, "after an answered renewal"},
		"kept, but renewed too late":         {Lease{Kept: true, TTL: 10 * time.Second, Renewed: 40 * s, Gone: 51 * s, Until: 60 * s}, ""},
		"not renewed":                        {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Gone: 4 * s, Until: 4 * s}, ""},
		"not renewed, ended too early":       {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Gone: 2 * s, Until: 2 * s}, "ended 1s after"},
		"not renewed, ended too late":        {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Gone: 20 * s, Until: 20 * s}, "ended too late, 19s"},
		"not renewed, still exists":          {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Until: 20 * s}, "still exists 19s"},
		"not renewed, takeovers add nothing": {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Gone: 10 * s, Until: 20 * s, Takeovers: 3}, "with 3 takeovers"},
		"not renewed, during an outage":      {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Gone: 10 * s, Until: 20 * s, Outage: 5 * time.Second}, ""},
		"not renewed, granted a moment ago":  {Lease{TTL: 2 * time.Second, Called: s, Granted: s, Until: 2 * s}, ""},
	} {
		wrong := strings.Join(CheckLeases([]*Lease{&c.lease}, time.Second), "\n")
		if !strings.Contains(wrong, c.want) || (wrong != "") != (c.want != "") {
			t.Errorf("%s: found %q, want %q", name, wrong, c.want)
		}
	}
}

func TestChangedPaddingIsNotRemoved(t *testing.T) {
	c := &Client{ValueBytes: 20}
	long := c.long("1.2")
	if len(long) != 20 || c.short([]byte(long)) != "1.2" {
		t.Errorf("%q becomes %q", long, c.short([]byte(long)))
	}
	for _, changed := range []string{long[:19], long + "x", strings.Replace(long, "x", "y", 1)} {
		if c.short([]byte(changed)) == "1.2" {
			t.Errorf("%q is taken for 1.2", changed)
		}
	}
	if got := c.short([]byte("longer than the others are.1")); got != "longer than the others are.1" {
		t.Errorf("%q", got)
	}
}
