package store

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// This switches on etcd's own checks of its locks and indices.
	if os.Getenv("ETCD_VERIFY") == "" {
		os.Setenv("ETCD_VERIFY", "all")
	}
	goleak.VerifyTestMain(m)
}
