package services

import (
	"errors"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/member"
)

// Services for which there are too few open files are refused, and those that run are told to whoever
// divides the open files.
func TestServicesThatDoNotFit(t *testing.T) {
	r := newRig(t, `service "p" { command = ["sleep", "600"] }`)
	var used []config.Service
	r.host.Use = func(all []config.Service) { used = all }
	r.host.Fit = func(all []config.Service) error {
		if len(all) > 1 {
			return &openfiles.TooFew{Limit: 1}
		}
		return nil
	}
	r.lead()
	r.await("p/1", 0)
	few := func(what string, err error) {
		t.Helper()
		if !errors.As(err, new(*openfiles.TooFew)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	q := r.host.Configured[0]
	q.Name = "q"
	_, err := r.now.Act(t.Context(), member.ServiceCommand{Action: member.ActionRun, Service: &q})
	few("add", err)
	for _, dry := range []bool{true, false} {
		_, err = r.now.Configure(t.Context(), append([]config.Service{q}, r.host.Configured...), dry)
		few("configure", err)
	}
	if len(used) != 1 || used[0].Name != "p" {
		t.Errorf("used: %+v", used)
	}
	changes, err := r.now.Configure(t.Context(), r.host.Configured, false)
	if err != nil || len(changes.Added) != 0 {
		t.Errorf("the configuration before: %+v %v", changes, err)
	}
}
