package cli

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// statusLeader is a leader with a given picture of its cluster.
type statusLeader struct {
	wire.UnimplementedAdminServer
	tree *tree.Tree
	ps   *ps.Report
}

func (l statusLeader) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	b, err := l.tree.Encode()
	return &wire.TreeResponse{Json: b}, err
}

func (l statusLeader) Services(context.Context, *wire.ServicesRequest) (*wire.ServicesResponse, error) {
	b, err := l.ps.Encode()
	return &wire.ServicesResponse{Json: b}, err
}

// TestStatus: the status is one line of at most 80 columns that says what is missing.
func TestStatus(t *testing.T) {
	health := `{"health":"true","reason":""}`
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(health)) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(web) }()
	defer func() { server.Close(); <-served }()

	client := web.Addr().String()
	members := []tree.Member{{Address: "127.0.0.1:1", Role: "leader"}, {Address: "127.0.0.1:2", State: "in_sync"}, {Address: "127.0.0.1:3", State: "in_sync"}}
	good := ps.Service{Name: "good", Desired: ps.DesiredRunning, Instances: []ps.Instance{{ID: "good/1", Ready: true, State: "ready"}, {ID: "good/2", State: "done"}}}
	bad := ps.Service{Name: "bad", Desired: ps.DesiredRunning, Instances: []ps.Instance{{ID: "bad/1", State: "failed"}}}
	idle := []ps.Service{{Name: "stopped", Desired: ps.DesiredStopped, Instances: []ps.Instance{{ID: "stopped/1", State: "stopped"}}},
		{Name: "elsewhere", Desired: ps.DesiredRunning, Elsewhere: "it runs on host-b", Instances: []ps.Instance{{ID: "elsewhere/1"}}}}
	var many []ps.Service
	for range 20 {
		many = append(many, bad)
	}
	for name, c := range map[string]struct {
		members  []tree.Member
		services []ps.Service
		health   string
		want     string
	}{
		"healthy":         {members, nil, health, "healthy: epoch 7, 2 of 2 followers, clients at " + client},
		"with services":   {members, append(idle, good), health, "healthy: epoch 7, 2 of 2 followers, 2 of 2 instances, clients at 127.0.0.1:"},
		"a follower":      {members[:2], nil, health, "degraded: 1 of 2 followers in sync"},
		"a service":       {members, []ps.Service{good, bad}, health, "degraded: bad/1 is failed"},
		"both":            {members[:1], []ps.Service{bad}, health, "degraded: 0 of 2 followers in sync; bad/1 is failed"},
		"no space":        {members, nil, `{"health":"false","reason":"ALARM NOSPACE"}`, "degraded: writes are refused for lack of space"},
		"much is missing": {members, many, health, "degraded: bad/1 is failed; bad/1 is failed; "},
	} {
		health = c.health
		dir, err := datadir.Open(t.TempDir(), true)
		if err != nil {
			t.Fatal(err)
		}
		l, err := dir.ListenAdmin()
		if err != nil {
			t.Fatal(err)
		}
		admin := grpc.NewServer()
		wire.RegisterAdminServer(admin, statusLeader{
			tree: &tree.Tree{Schema: tree.Schema, Epoch: 7, Leader: "127.0.0.1:1", Client: client, Followers: 2, Members: c.members},
			ps:   &ps.Report{Schema: ps.Schema, At: time.Now(), Services: c.services},
		})
		ended := make(chan error, 1)
		go func() { ended <- admin.Serve(l) }()
		s, err := statusOf(context.Background(), dir.Path())
		admin.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		var out strings.Builder
		if err == nil {
			err = s.Render(&out)
		}
		line := strings.TrimSuffix(out.String(), "\n")
		if err != nil || !strings.HasPrefix(line, c.want) || len([]rune(line)) > 80 || strings.Contains(line, "\n") {
			t.Errorf("%s: %q, %v, want %q", name, line, err, c.want)
		}
	}
	if s, err := statusOf(context.Background(), t.TempDir()); err == nil || s.Health != down {
		t.Errorf("nothing runs: %+v, %v", s, err)
	}
}
