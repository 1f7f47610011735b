package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxJoinedBytes bounds how many bytes the HCL parser copies to join the parts of texts. The lexer
// makes a part of each line of a heredoc, and of each sign $ and %. The parser appends the parts one
// by one to a copy of what it has so far, so the time is quadratic: 32 KiB of % take more than a second.
//
// 64 MiB take about 0.1 s. A heredoc of 64 KiB with lines of 40 bytes needs 54 MB, and a thousand
// scripts of 1 KiB need 13 MB.
const maxJoinedBytes = 64 << 20

// tooLongTexts returns where the parts of texts exceed maxJoinedBytes, or nil.
func tooLongTexts(tokens hclsyntax.Tokens) *hcl.Range {
	text, joined := 0, 0
	for _, t := range tokens {
		if t.Type != hclsyntax.TokenQuotedLit && t.Type != hclsyntax.TokenStringLit {
			text = 0
			continue
		}
		text += len(t.Bytes)
		if text > len(t.Bytes) { // the first part of a text is not copied
			joined += text
		}
		if joined > maxJoinedBytes {
			return &t.Range
		}
	}
	return nil
}
