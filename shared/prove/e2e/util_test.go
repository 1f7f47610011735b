package e2e

import (
	"net"
	"testing"

	"github.com/dynast-io/dynast/shared/host/proc"
)

func zombie(pid int) bool {
	u, err := proc.ReadUsage(pid)
	return err != nil || u.State == 'Z'
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
