package cli

import (
	"fmt"
	"os"
	ossignal "os/signal"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
)

func (a *App) ctlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "ctl COMMAND [ARGUMENT ...]",
		Short:              "Run a command of etcdctl on this cluster",
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

// ctl runs a command of etcdctl. It takes --data-dir and --config for itself, to find the
// cluster. All other flags are those of etcdctl.
func (a *App) ctl(args []string) error {
	args, dataDir := takeFlag(args, "--data-dir")
	args, file := takeFlag(args, "--config")
	flags := pflag.NewFlagSet("ctl", pflag.ContinueOnError)
	c := &Configured{defaults: a.Defaults, file: file, flags: config.BindFlags(flags)}
	if dataDir != "" {
		if err := flags.Set("data-dir", dataDir); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
	}
	cfg, err := c.Load()
	if err != nil {
		return err
	}
	endpoint := Endpoint(cfg.DataDir, cfg.Client.Listen)
	if cfg.Client.TLS() {
		endpoint = "https://" + endpoint
	}
	return asError(Ctl(args, endpoint))
}

// takeFlag removes "NAME VALUE" or "NAME=VALUE" from the arguments and returns the value.
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

// Ctl runs a command of etcdctl. It uses the default endpoint if neither the arguments nor the
// environment name one. On most errors it exits the process, as etcdctl does.
func Ctl(args []string, defaultEndpoint string) error {
	full := []string{"dynast ctl"}
	if !namesEndpoints(args) {
		full = append(full, "--endpoints="+defaultEndpoint)
	}
	// etcdctl relies on the Go runtime to end a watch on an interrupt. Its lock and elect
	// commands catch the signal themselves.
	ossignal.Reset(os.Interrupt)
	// etcdctl reads its arguments only from os.Args.
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

// Endpoint returns the client address of the cluster in a data directory, or otherwise if there
// is no cluster.
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
