package services

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a host on which one Manager follows another.
type rig struct {
	t    *testing.T
	host member.ServiceHost
	now  member.Services // nil while no leader is there
}

// newRig makes a host with the services of a configuration. At the end of the test they are stopped.
func newRig(t *testing.T, hcl string) *rig {
	t.Helper()
	defaults, err := os.ReadFile("../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("test.hcl", []byte(hcl), defaults)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := datadir.Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := proc.BootID()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, host: member.ServiceHost{
		Config: cfg, Configured: cfg.Services, Builtin: func() []config.Service { return nil }, Dir: dir, BootID: boot, Logger: hclog.NewNullLogger(),
		Fit: func([]config.Service) error { return nil }, Use: func([]config.Service) {},
		Tell: func(string, string, int, string) {}, Stopped: func() {},
	}}
	r.shareNothing()
	t.Cleanup(func() {
		if r.now == nil {
			r.lead()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.now.StopAll(ctx); err != nil {
			t.Error(err)
		}
		r.release()
		r.shareNothing()
	})
	return r
}

// shareNothing closes the sockets that members share, as the death of all members does.
func (r *rig) shareNothing() {
	if r.host.Sockets != nil {
		for _, f := range r.host.Sockets.All().Files() {
			_ = f.Close()
		}
	}
	r.host.Sockets = member.NewSockets(nil)
}

func (r *rig) lead() {
	r.t.Helper()
	var err error
	if r.now, err = New(r.host); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) release() {
	r.now.Release()
	r.now = nil
}

func (r *rig) instance(id string) ps.Instance {
	r.t.Helper()
	raw, err := r.now.Report(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	report, err := ps.Decode(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, i := range report.Find(id) {
		return i
	}
	return ps.Instance{}
}

// await waits until an instance is ready, with another process than before.
func (r *rig) await(id string, before int) ps.Instance {
	r.t.Helper()
	var i ps.Instance
	testkit.Eventually(r.t, fmt.Sprintf("%s is ready", id), func() bool {
		i = r.instance(id)
		return i.State == "ready" && i.PID != before
	})
	return i
}
