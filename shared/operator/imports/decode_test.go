package imports

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// decoded is a block of the output: its attributes by name, or by block.name.
type decoded map[string]cty.Value

func (d decoded) text(t testing.TB, name string) string {
	t.Helper()
	v, ok := d[name]
	if !ok || v.Type() != cty.String {
		t.Fatalf("%s is not a text in %#v", name, d)
	}
	return v.AsString()
}

func (d decoded) list(t testing.TB, name string) []string {
	t.Helper()
	var items []string
	v, ok := d[name]
	if !ok || !v.Type().IsTupleType() {
		t.Fatalf("%s is not a list in %#v", name, d)
	}
	for _, item := range v.AsValueSlice() {
		items = append(items, item.AsString())
	}
	return items
}

// decode reads the output again. Every value has to be a constant.
func decode(t testing.TB, out []byte) map[string]decoded {
	t.Helper()
	file, diags := hclsyntax.ParseConfig(out, "out.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("the output is not HCL: %v\n%s", diags, out)
	}
	body := file.Body.(*hclsyntax.Body)
	if len(body.Attributes) > 0 {
		t.Fatalf("the output has attributes outside of blocks:\n%s", out)
	}
	services := map[string]decoded{}
	for _, block := range body.Blocks {
		if block.Type != "service" || len(block.Labels) != 1 {
			t.Fatalf("unexpected block %s %q in\n%s", block.Type, block.Labels, out)
		}
		d := decoded{}
		attributes := func(prefix string, body *hclsyntax.Body) {
			for name, a := range body.Attributes {
				v, diags := a.Expr.Value(nil)
				if diags.HasErrors() {
					t.Fatalf("%s is not a constant: %v\n%s", name, diags, out)
				}
				d[prefix+name] = v
			}
		}
		attributes("", block.Body)
		for _, inner := range block.Body.Blocks {
			prefix := inner.Type + "."
			for _, label := range inner.Labels {
				prefix += label + "."
			}
			attributes(prefix, inner.Body)
		}
		services[block.Labels[0]] = d
	}
	return services
}
