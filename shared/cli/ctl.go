package cli

import (
	"os"
	"strings"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"

	"github.com/dynast-io/dynast/shared/datadir"
)

// Ctl runs one of etcdctl's own commands, against the default endpoint where
// neither the arguments nor the environment name one. It ends the process by
// itself on most errors, as etcdctl does.
func Ctl(args []string, defaultEndpoint string) error {
	full := []string{"dynast ctl"}
	if !namesEndpoints(args) {
		full = append(full, "--endpoints="+defaultEndpoint)
	}
	// etcdctl reads its arguments from os.Args only.
	os.Args = append(full, args...)
	return ctlv3.Start()
}

func namesEndpoints(args []string) bool {
	if os.Getenv("ETCDCTL_ENDPOINTS") != "" {
		return true
	}
	for _, a := range args {
		if a == "--endpoints" || strings.HasPrefix(a, "--endpoints=") || strings.HasPrefix(a, "--discovery-srv") {
			return true
		}
	}
	return false
}

// Endpoint is the client address of the cluster in a data directory, or the
// given one where there is no cluster.
func Endpoint(dataDir, otherwise string) string {
	dir, err := datadir.OpenForReading(dataDir)
	if err != nil {
		return otherwise
	}
	s, err := dir.ReadSuccession()
	if err != nil || s.Client == "" {
		return otherwise
	}
	return s.Client
}
