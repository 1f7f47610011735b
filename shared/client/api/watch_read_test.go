package api

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestAReadAfterAnEventSeesIt: a client that was told of a change and then reads sees that
// change or a later one.
func TestAReadAfterAnEventSeesIt(t *testing.T) {
	s := serve(t, nil)
	writer, c, ctx := s.stock(t), s.stock(t), t.Context()
	const writes = 3000
	seen := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
	<-seen // created
	failed := make(chan error, 1)
	go func() {
		for i := range writes {
			if _, err := writer.Put(ctx, "k", fmt.Sprint(i)); err != nil {
				failed <- err
				return
			}
		}
	}()
	for n := 0; n < writes; {
		select {
		case err := <-failed:
			t.Fatal(err)
		case resp := <-seen:
			n += len(resp.Events)
			told := resp.Events[len(resp.Events)-1].Kv.ModRevision
			got, err := c.Get(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			if got.Header.Revision < told || got.Kvs[0].ModRevision < told {
				t.Fatalf("told of revision %d, and then read %d at revision %d", told, got.Kvs[0].ModRevision, got.Header.Revision)
			}
		}
	}
}
