package files

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/client/web"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// filesOf returns the Budget of a leader with this client.max_connections.
func filesOf(t *testing.T, maxConnections int, r *roster.Roster) *Budget {
	t.Helper()
	cfg := &config.Config{}
	cfg.Client.MaxConnections = maxConnections
	sh, _ := statetest.New(t, cfg, false)
	sh.Publish(r)
	f, err := New(sh)
	if err != nil {
		t.Fatal(err)
	}
	f.gate.Store(gate.New("clients", f.clientLimits(), nil))
	return f
}

func limitOfFiles(t *testing.T) int {
	t.Helper()
	limit, err := openfiles.Raise()
	if err != nil {
		t.Fatal(err)
	}
	if limit < openfiles.Needed(10) || limit > 900_000 {
		t.Skipf("a limit of %d open files says nothing here", limit)
	}
	return limit
}

// Clients have fewer places from the moment at which a follower is promised, and not only when
// it exists. If the follower does not come, they get the places back.
func TestClientsMakeRoomFirst(t *testing.T) {
	limitOfFiles(t)
	r := &roster.Roster{Followers: 2}
	f := filesOf(t, 1_000_000, r)
	before := f.gate.Load().Limits()
	if !before.Wait {
		t.Fatalf("more connections than descriptors do not wait: %+v", before)
	}
	release, err := f.Promise(4)
	if err != nil {
		t.Fatal(err)
	}
	if now := f.gate.Load().Limits(); before.Total-now.Total != openfiles.Needed(4)-openfiles.Needed(2) {
		t.Errorf("%d places, %d after two followers were promised", before.Total, now.Total)
	}
	release()
	if now := f.gate.Load().Limits(); now != before {
		t.Errorf("%+v, %+v after the promise was released", before, now)
	}
	// A follower that an operator started counts in addition to the configured number.
	byHand := roster.Member{ID: roster.ID{Address: netip.MustParseAddrPort("127.0.0.1:7403")}, ByHand: true}
	f.State.Publish(&roster.Roster{Followers: 2, Members: []roster.Member{byHand}})
	f.adapt()
	if now := f.gate.Load().Limits(); before.Total-now.Total != openfiles.Needed(3)-openfiles.Needed(2) {
		t.Errorf("%d places, %d after a follower joined", before.Total, now.Total)
	}
}

// A promise that the limit does not allow is refused. Fewer followers are always possible.
func TestPromisesAreRefused(t *testing.T) {
	limit := limitOfFiles(t)
	tooMany := (limit-openfiles.Needed(0))/(openfiles.Needed(1)-openfiles.Needed(0)) + 1
	f := filesOf(t, 100, &roster.Roster{Followers: 2})
	var few *openfiles.TooFew
	if _, err := f.Promise(tooMany); !errors.As(err, &few) || few.Followers != tooMany || few.Limit != limit {
		t.Errorf("%d followers with a limit of %d: %v", tooMany, limit, err)
	}
	release, err := f.Promise(tooMany - 1)
	if err != nil {
		t.Fatalf("%d followers with a limit of %d: %v", tooMany-1, limit, err)
	}
	release()
	f.State.Publish(&roster.Roster{Followers: tooMany + 1})
	if release, err = f.Promise(tooMany); err != nil {
		t.Fatalf("fewer followers than there are: %v", err)
	}
	release()
}

// Clients leave room for the programs of services, and a promise does so too.
func TestServicesTakeDescriptors(t *testing.T) {
	limit := limitOfFiles(t)
	r := &roster.Roster{Followers: 2}
	before := filesOf(t, 1_000_000, r).gate.Load().Limits().Total
	f := filesOf(t, 1_000_000, r)
	f.Settings.Start.Services = []config.Service{
		{Name: "web", Instances: 3, Listen: make([]config.Listen, 2), Ready: &config.Check{Kind: config.CheckHTTP}},
		{Name: "job", Instances: 2, Ready: &config.Check{Kind: config.CheckNotify}},
	}
	if got, want := ServicesOf(f.Settings.Start.Services), (openfiles.Services{Instances: 5, Checked: 3, Sockets: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	need := ServicesOf(f.Settings.Start.Services).Needed()
	if f.adapt(); before-f.gate.Load().Limits().Total != need {
		t.Errorf("%d places of clients without services, %d with some that need %d descriptors", before, f.gate.Load().Limits().Total, need)
	}
	// Services that were added at run time count too.
	more := append(slices.Clone(f.Settings.Start.Services), config.Service{Name: "more", Instances: 7})
	f.Use(more)
	if now := before - f.gate.Load().Limits().Total; now != ServicesOf(more).Needed() || now <= need {
		t.Errorf("%d descriptors are left for services that need %d", now, ServicesOf(more).Needed())
	}
	if err := f.Fit(append(more, config.Service{Name: "most", Instances: limit})); !errors.As(err, new(*openfiles.TooFew)) {
		t.Errorf("%d more instances with a limit of %d: %v", limit, limit, err)
	}
	if err := f.Fit(more); err != nil {
		t.Error(err)
	}
	f.Settings.Start.Services[0].Instances = limit
	var few *openfiles.TooFew
	if err := Check(2, f.Settings.Start.Services); !errors.As(err, &few) || few.Services.Instances != limit+2 {
		t.Errorf("%d instances with a limit of %d: %v", limit+2, limit, err)
	}
}

// If there are enough descriptors, one connection more than client.max_connections gets an
// error, for which a descriptor is reserved.
func TestConfiguredBoundGetsAnError(t *testing.T) {
	limit := limitOfFiles(t)
	r := &roster.Roster{Followers: 2}
	share := filesOf(t, 1_000_000, r).gate.Load().Limits().Total
	for most, wait := range map[int]bool{16: false, share - web.Refusing: false, share - web.Refusing + 1: true, share + 1: true} {
		l := filesOf(t, most, r).gate.Load().Limits()
		if l.Wait != wait || l.Total != min(most, share) {
			t.Errorf("limit %d, share %d, max_connections %d: %+v", limit, share, most, l)
		}
	}
}
