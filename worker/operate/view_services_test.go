package operate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/worker/state"
)

// reporter is a supervisor that can only describe its services.
type reporter struct {
	member.Services
	report func(context.Context) ([]byte, error)
}

func (r reporter) Report(ctx context.Context) ([]byte, error) { return r.report(ctx) }

func operatorsOf(get func(bool) (member.Services, error)) *Operators {
	return &Operators{Shared: &state.Shared{Fate: &state.Fate{}}, services: get}
}

func TestServiceReport(t *testing.T) {
	raw, err := (&ps.Report{Schema: ps.Schema, Services: []ps.Service{{Name: "web"}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	report := func(b []byte, err error) func(bool) (member.Services, error) {
		return func(create bool) (member.Services, error) {
			if create {
				t.Error("a scrape must not make a supervisor")
			}
			return reporter{report: func(context.Context) ([]byte, error) { return b, err }}, nil
		}
	}
	if r := operatorsOf(report(raw, nil)).serviceReport(); r == nil || len(r.Services) != 1 || r.Services[0].Name != "web" {
		t.Errorf("the report is %+v", r)
	}
	for what, get := range map[string]func(bool) (member.Services, error){
		"no services":     func(bool) (member.Services, error) { return nil, nil },
		"not leading":     func(bool) (member.Services, error) { return nil, errors.New("not leading") },
		"failed report":   report(nil, errors.New("released")),
		"unreadable JSON": report([]byte("{"), nil),
	} {
		if r := operatorsOf(get).serviceReport(); r != nil {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// A scrape waits neither for a supervisor that does not answer nor for one that is being made.
func TestServiceReportIsBounded(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for what, get := range map[string]func(bool) (member.Services, error){
		"no answer": func(bool) (member.Services, error) {
			return reporter{report: func(ctx context.Context) ([]byte, error) {
				deadline, ok := ctx.Deadline()
				if !ok || time.Until(deadline) > reportPatience {
					t.Error("the report has no deadline")
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}}, nil
		},
		"being made": func(bool) (member.Services, error) {
			<-release
			return nil, nil
		},
	} {
		done := make(chan *ps.Report)
		go func() { done <- operatorsOf(get).serviceReport() }()
		select {
		case r := <-done:
			if r != nil {
				t.Errorf("%s: %+v", what, r)
			}
		case <-time.After(100 * reportPatience):
			t.Fatalf("%s: the scrape hangs", what)
		}
	}
}
