package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxNesting bounds how deep a file makes the HCL parser, and the evaluation of what it parsed,
// call itself. The parser needs 15 KB of stack for each level, and Go ends a process whose stack
// exceeds 1 GB. So the parser needs at most 15 MB.
const maxNesting = 1000

// nesting follows the tokens of a file and counts the levels.
//
// A bracket within a bracket is a level. Operators need no brackets to nest: -----1 and
// 1?1:1?1:1 nest in the parser, 1+1+1 and a[0][0][0] in the evaluation. So each operator and
// each closed bracket also counts, until the item ends to which it belongs.
type nesting struct {
	open   []bracket
	levels int // the sum of the levels of all open brackets
}

// bracket is an open bracket, or the file itself.
type bracket struct {
	closer hclsyntax.TokenType
	at     hcl.Range
	levels int // of the current item
	// lines is true if the end of a line ends an item, as in blocks and objects.
	lines bool
}

var closers = map[hclsyntax.TokenType]hclsyntax.TokenType{
	hclsyntax.TokenOBrace:          hclsyntax.TokenCBrace,
	hclsyntax.TokenOBrack:          hclsyntax.TokenCBrack,
	hclsyntax.TokenOParen:          hclsyntax.TokenCParen,
	hclsyntax.TokenOQuote:          hclsyntax.TokenCQuote,
	hclsyntax.TokenOHeredoc:        hclsyntax.TokenCHeredoc,
	hclsyntax.TokenTemplateInterp:  hclsyntax.TokenTemplateSeqEnd,
	hclsyntax.TokenTemplateControl: hclsyntax.TokenTemplateSeqEnd,
}

var operators = []hclsyntax.TokenType{
	hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenPlus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent,
	hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
	hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
	hclsyntax.TokenQuestion, hclsyntax.TokenDot, hclsyntax.TokenEllipsis, hclsyntax.TokenDoubleColon,
}

// tooNested returns where the file exceeds maxNesting, and where the outermost bracket opens in
// which that happens. It returns nil if the file does not exceed it.
func tooNested(tokens hclsyntax.Tokens) (at, outermost *hcl.Range) {
	n := nesting{open: []bracket{{lines: true}}}
	for i, t := range tokens {
		n.take(t)
		// A for expression in braces goes on over the ends of lines.
		if i > 0 && t.Type == hclsyntax.TokenIdent && string(t.Bytes) == "for" {
			n.top().lines = len(n.open) == 1
		}
		if n.levels > maxNesting {
			outermost = &t.Range
			if len(n.open) > 1 {
				outermost = &n.open[1].at
			}
			return &t.Range, outermost
		}
	}
	return nil, nil
}

func (n *nesting) top() *bracket { return &n.open[len(n.open)-1] }

func (n *nesting) take(t hclsyntax.Token) {
	closer, opens := closers[t.Type]
	top := n.top()
	switch {
	case opens:
		n.count(top)
		n.open = append(n.open, bracket{closer: closer, at: t.Range, lines: t.Type == hclsyntax.TokenOBrace})
	case len(n.open) > 1 && t.Type == top.closer:
		// A bracket of another kind closes nothing. The parser may go on inside.
		n.levels -= top.levels
		n.open = n.open[:len(n.open)-1]
	case t.Type == hclsyntax.TokenComma, top.lines && endsLine(t):
		n.levels -= top.levels
		top.levels = 0
	case slices.Contains(operators, t.Type):
		n.count(top)
	}
}

func (n *nesting) count(b *bracket) {
	b.levels++
	n.levels++
}

// endsLine reports whether a token ends a line. A comment up to the end of its line includes it.
func endsLine(t hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline ||
		t.Type == hclsyntax.TokenComment && len(t.Bytes) > 0 && t.Bytes[len(t.Bytes)-1] == '\n'
}
