package cli

import (
	"fmt"
	"os"
	ossignal "os/signal"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/datadir"
)

func (a *App) ctlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "ctl COMMAND [ARGUMENT ...]",
		Short:              "Run one of etcdctl's own commands against this cluster",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return a.ctl(args) },
	}
}

func (a *App) ctlAlias(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name + " [ARGUMENT ...]",
		Short:              fmt.Sprintf("Short for 'dynast ctl %s'", name),
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return a.ctl(append([]string{name}, args...)) },
	}
}

// ctl runs one of etcdctl's commands. Of this program's own flags it knows
// --data-dir and --config, by which it finds the cluster; all others are etcdctl's.
func (a *App) ctl(args []string) error {
	args, dataDir := takeFlag(args, "--data-dir")
	args, file := takeFlag(args, "--config")
	cfg, err := config.Load(file, a.Defaults)
	if err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	if dataDir != "" {
		cfg.DataDir = dataDir
	}
	endpoint := Endpoint(cfg.DataDir, cfg.Client.Listen)
	if cfg.Client.TLS() {
		endpoint = "https://" + endpoint
	}
	return asError(Ctl(args, endpoint))
}

// takeFlag takes "NAME VALUE" or "NAME=VALUE" out of arguments.
func takeFlag(args []string, name string) (rest []string, value string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == name && i+1 < len(args):
			value = args[i+1]
			i++
		case strings.HasPrefix(args[i], name+"="):
			value = args[i][len(name)+1:]
		default:
			rest = append(rest, args[i])
		}
	}
	return rest, value
}

// Ctl runs one of etcdctl's own commands, against the default endpoint where
// neither the arguments nor the environment name one. It ends the process by
// itself on most errors, as etcdctl does.
func Ctl(args []string, defaultEndpoint string) error {
	full := []string{"dynast ctl"}
	if !namesEndpoints(args) {
		full = append(full, "--endpoints="+defaultEndpoint)
	}
	// An interrupt ends a watch, as it does in etcdctl, which leaves it to the
	// runtime; a lock and an election catch it by themselves.
	ossignal.Reset(os.Interrupt)
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
