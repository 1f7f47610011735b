package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
)

// KillServices kills all instances of the user's services that have a process, and returns their
// names.
func KillServices(ctx context.Context, dataDir string) ([]string, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, err
	}
	r, err := readServices(ctx, dir)
	if err != nil {
		return nil, err
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
		return nil, nil
	}
	slices.Sort(names)
	_, err = sendAct(ctx, dir, &wire.ActRequest{Action: string(member.ActionKill), Names: names})
	return names, err
}
