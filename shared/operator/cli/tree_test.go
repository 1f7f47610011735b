package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// oldLeader is a leader from before services.
type oldLeader struct{ wire.UnimplementedAdminServer }

func (oldLeader) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	b, err := (&tree.Tree{Schema: tree.Schema, Epoch: 7}).Encode()
	return &wire.TreeResponse{Json: b}, err
}

type newLeader struct{ oldLeader }

func (newLeader) Services(context.Context, *wire.ServicesRequest) (*wire.ServicesResponse, error) {
	b, err := (&ps.Report{Schema: ps.Schema, At: time.Now(), Services: []ps.Service{{Name: "web"}}}).Encode()
	return &wire.ServicesResponse{Json: b}, err
}

// A leader that does not know services is shown without them, which happens during an upgrade.
func TestTreeOfOldLeader(t *testing.T) {
	for _, c := range []struct {
		leader wire.AdminServer
		shown  bool
	}{{oldLeader{}, false}, {newLeader{}, true}} {
		dir, err := datadir.Open(t.TempDir(), true)
		if err != nil {
			t.Fatal(err)
		}
		l, err := dir.ListenAdmin()
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		wire.RegisterAdminServer(s, c.leader)
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		var out bytes.Buffer
		if err := Tree(context.Background(), dir.Path(), false, &out, term.Style{}); err != nil {
			t.Error(err)
		}
		if text := out.String(); !strings.Contains(text, "epoch 7") || strings.Contains(text, "web") != c.shown {
			t.Errorf("%T: got\n%s", c.leader, text)
		}
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
