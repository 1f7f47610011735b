package api

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

const authSteps = 600

// TestUsersSameAsEtcd makes the same random changes of users, roles and permissions in etcd and
// here, as different callers, lets these read and write, and compares the answers.
func TestUsersSameAsEtcd(t *testing.T) {
	seed := newSeed(t)
	ours := serve(t, nil)
	sides := []*side{newSide(t, dial(t, ours.address)), newSide(t, dial(t, startEtcd(t)))}
	grantLease(t, ours)
	g := &authGenerator{rand.New(rand.NewPCG(seed, 2))}
	failed := map[string]int{}
	for step := range authSteps {
		who, method, r := g.who(), "", proto.Message(nil)
		switch step {
		case 0, 1, 2, 3, 4: // most of the rest makes sense with users only
			who = ""
			method, r = begin(step)
		default:
			method, r = g.request()
		}
		var answers [2]proto.Message
		var errs [2]error
		for i, s := range sides {
			answers[i], errs[i] = s.send(t, who, method, r)
		}
		if status.Code(errs[0]) != status.Code(errs[1]) || status.Convert(errs[0]).Message() != status.Convert(errs[1]).Message() {
			t.Fatalf("seed %d step %d: %s as %q {%s}\nours: %v\netcd: %v", seed, step, method, who, prototext.Format(r), errs[0], errs[1])
		}
		failed[status.Convert(errs[0]).Message()]++
		if errs[0] != nil {
			continue
		}
		if d := difference(answers[:1], answers[1:]); d != "" {
			t.Fatalf("seed %d step %d: %s as %q {%s}\n%s", seed, step, method, who, prototext.Format(r), d)
		}
	}
	for text, n := range failed {
		t.Logf("%5d %s", n, text)
	}
}

func begin(step int) (string, proto.Message) {
	switch step {
	case 0:
		return "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: "p"}
	case 1:
		return "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}
	case 2:
		return "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u1", Password: "p"}
	case 3:
		return "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u2", Options: &authpb.UserAddOptions{NoPassword: true}}
	}
	return "Auth/AuthEnable", &pb.AuthEnableRequest{}
}

// side is one of the two servers.
type side struct {
	conn   *grpc.ClientConn
	tokens map[string]string
}

func newSide(_ *testing.T, conn *grpc.ClientConn) *side {
	return &side{conn: conn, tokens: map[string]string{}}
}

// send sends a request as a user, with the token of the user's first login. The token may be
// invalid by now; the answers must be the same then too.
func (s *side) send(t *testing.T, who, method string, r proto.Message) (proto.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if who != "" && s.tokens[who] == "" {
		resp, err := pb.NewAuthClient(s.conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: who, Password: "p"})
		if err != nil {
			return nil, err
		}
		s.tokens[who] = resp.Token
	}
	if who != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, s.tokens[who])
	}
	resp := newAnswer(r)
	err := s.conn.Invoke(ctx, "/etcdserverpb."+method, r, resp)
	if rpctypes.Error(err) == rpctypes.ErrInvalidAuthToken {
		delete(s.tokens, who)
	}
	return resp, err
}

// newAnswer makes the response type that belongs to a request, by its name.
func newAnswer(r proto.Message) proto.Message {
	name := r.ProtoReflect().Descriptor().Name()
	name = name[:len(name)-len("Request")] + "Response"
	types := pb.File_rpc_proto.Messages()
	return newMessage(types.ByName(name).FullName())
}
