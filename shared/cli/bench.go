package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/bench"
	"github.com/dynast-io/dynast/shared/core"
)

func (a *App) benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure a running cluster"}
	cmd.AddCommand(a.benchFailoverCommand())
	return cmd
}

func (a *App) benchFailoverCommand() *cobra.Command {
	var kills int
	var asJSON, stop bool
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill the leader again and again under one writing client, and measure the gaps",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().IntVar(&kills, "kills", 100, "how often the leader is killed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&stop, "stop", false, "send SIGSTOP instead of SIGKILL: the leader hangs, and has to be found out")
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		signal := unix.SIGKILL
		if stop {
			signal = unix.SIGSTOP
		}
		res, err := bench.Failover(cmd.Context(), bench.FailoverConfig{
			Endpoint: Endpoint(cfg.DataDir, cfg.Client.Listen), Kills: kills,
			Find: FindLeader(cfg.DataDir, cfg.Followers, signal), Settle: 30 * time.Second, Progress: os.Stderr,
		})
		if err != nil {
			return asError(err)
		}
		return printFailover(res, asJSON)
	}
	return cmd
}

func printFailover(res *bench.FailoverResult, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(res); err != nil {
			return err
		}
	} else {
		fmt.Printf("%d leader kills, %d acknowledged writes\n", res.Kills, res.Writes)
		fmt.Printf("gap between acknowledged writes: median %s  p99 %s  worst %s\n",
			res.Median.Round(10*time.Microsecond), res.P99.Round(10*time.Microsecond), res.Worst.Round(10*time.Microsecond))
		fmt.Printf("back to full strength: median %s\n", res.Refill.Round(time.Millisecond))
	}
	if len(res.Missing) > 0 {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("%d acknowledged writes are missing: %v", len(res.Missing), res.Missing)}
	}
	return nil
}
