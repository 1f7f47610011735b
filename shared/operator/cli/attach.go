package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
)

// KillServices kills all instances of the user's services that have a process. It calls killing with
// their names before, because the cluster may end before the leader's answer arrives. It returns
// false if no instance has a process, or with an error.
func KillServices(ctx context.Context, dataDir string, killing func([]string)) (bool, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return false, err
	}
	r, err := readServices(ctx, dir)
	if err != nil {
		return false, err
	}
	var names []string
	for _, s := range r.Services {
		for _, i := range s.Instances {
			if i.PID != 0 && !strings.HasPrefix(i.ID, member.EngineService) {
				names = append(names, i.ID)
			}
		}
	}
	if len(names) == 0 {
		return false, nil
	}
	slices.Sort(names)
	killing(names)
	_, err = sendAct(ctx, dir, &wire.ActRequest{Action: string(member.ActionKill), Names: names})
	return err == nil, err
}
