"""How pages look: quiet, the same in light and in dark."""

STYLE = """
:root { --ink: #1d2327; --muted: #5b656d; --faint: #e4e7ea; --paper: #ffffff; --card: #f6f7f8;
  --c1: #0072b2; --c2: #a86500; --c3: #00795a; --c4: #a64d83; --c5: #1d2327;
  --front: #d5dbe1; --gone: #c0392b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --muted: #98a2ab; --faint: #2b3238; --paper: #14181b; --card: #1d2327;
    --c1: #56b4e9; --c2: #f0b040; --c3: #3cc8a0; --c4: #dd92bd; --c5: #e6e9ec;
    --front: #38424b; --gone: #ff8473; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 27px; font-weight: 650; margin: 0 0 4px; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 18px; font-weight: 600; margin: 0 0 10px; }
h3 { font-size: 13px; font-weight: 600; margin: 18px 0 4px; color: var(--muted); }
p { margin: 0 0 10px; }
section { margin-top: 44px; padding-top: 18px; border-top: 1px solid var(--faint); }
.lead, .small, section > p { color: var(--muted); }
.small { font-size: 13px; margin-top: 8px; }
.state { color: var(--gone); font-weight: 600; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.card { flex: 1 1 150px; background: var(--card); border-radius: 10px; padding: 14px 16px; }
.card span { display: block; }
.what, .note { color: var(--muted); font-size: 13px; }
.value { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--c1); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 10px 0 4px; }
caption { text-align: left; color: var(--muted); font-size: 13px; padding-bottom: 4px; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--faint); text-align: right;
  font-variant-numeric: tabular-nums; vertical-align: top; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; padding-right: 18px; }
td { padding-left: 8px; }
:is(td, th):nth-child(2):last-child { text-align: left; white-space: normal; min-width: 12em; }
thead th { color: var(--muted); font-weight: 500; }
tr.total th, tr.total td { font-weight: 600; border-bottom: 0; }
tr.gone th { text-decoration: line-through; } tr.gone { color: var(--gone); }
tr.differs td { color: var(--c2); font-weight: 600; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--muted); font-size: 13.5px; }
pre { background: var(--card); border-radius: 8px; padding: 12px 16px; font-size: 13px;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 14px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .name { text-anchor: end; fill: var(--ink); } svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .seed { fill: none; stroke: var(--muted); stroke-width: 1; opacity: .75; }
svg .now .fill { fill: var(--c1); } svg .wider .fill { fill: var(--c2); }
svg .between { fill: var(--paper); stroke: var(--ink); stroke-width: 1.2; }
svg .removed text { fill: var(--gone); } svg .strike { stroke: var(--gone); stroke-width: 1.3; }
svg .removed .seed { stroke: var(--gone); stroke-dasharray: 3 3; }
.tradeoff { max-width: 660px; }
svg .grid { stroke: var(--faint); fill: none; } svg .shade { fill: var(--card); }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .error { fill: none; stroke-width: 1.2; } svg .dashed { stroke-dasharray: 5 4; }
svg .front { fill: none; stroke: var(--front); stroke-width: 8; stroke-linejoin: round; }
svg .s1 { stroke: var(--c5); } svg .s2 { stroke: var(--c1); } svg .s3 { stroke: var(--c3); }
svg .s4 { stroke: var(--c2); } svg .s5 { stroke: var(--c4); }
svg .dot { fill: var(--paper); stroke-width: 2; }
.mark { display: inline-block; width: 30px; height: 14px; vertical-align: middle;
  margin-right: 6px; }
.lines .s1 { stroke: var(--c1); } .lines .s2 { stroke: var(--muted); }
.networks { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr));
  gap: 18px 32px; margin: 14px 0 6px; grid-auto-flow: dense; }
.network { margin: 0; break-inside: avoid; } .network.wide { grid-column: 1 / -1; }
figcaption { font-size: 13px; display: flex; flex-wrap: wrap; justify-content: space-between;
  gap: 0 12px; padding-bottom: 4px; border-bottom: 1px solid var(--faint); }
figcaption b { font-weight: 600; } figcaption span { color: var(--muted); }
svg .box { fill: var(--card); stroke: var(--ink); stroke-width: 1.3; }
svg .core text { fill: var(--ink); }
svg .bond path { stroke: var(--ink); stroke-linecap: round; } svg .copy { fill: var(--ink); }
svg .size { paint-order: stroke; stroke: var(--paper); stroke-width: 6px; stroke-linejoin: round; }
svg .bond text { fill: var(--ink); font-weight: 600; }
svg .input path { stroke: var(--c1); } svg .input text { fill: var(--c1); }
svg .output path { stroke: var(--c3); } svg .output text { fill: var(--c3); }
svg .window path { stroke: var(--c2); } svg .window text { fill: var(--c2); }
svg .plate { fill: none; stroke: var(--muted); stroke-dasharray: 4 4; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0;
  margin: 8px 0 0; font-size: 13px; color: var(--muted); }
.legend i { display: inline-block; width: 20px; height: 0; border-top: 3px solid;
  vertical-align: middle; margin-right: 7px; }
.legend .front { border-top-width: 8px; color: var(--front); }
.legend .seed { height: 11px; border: 1px solid var(--muted); }
.legend .now { height: 11px; border: 0; background: var(--c1); }
.legend .wider { height: 11px; border: 0; background: var(--c2); }
.legend .between { width: 9px; height: 9px; border: 1.2px solid var(--ink);
  transform: rotate(45deg); }
.networks-key .input { color: var(--c1); } .networks-key .output { color: var(--c3); }
.networks-key .window { color: var(--c2); } .networks-key .bond { color: var(--ink); }
@media print { body { font-size: 12px; } section { break-inside: avoid; } }
"""
