'use strict';
const began = performance.now();
const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const html = (text) => String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const hex = (value, digits) => value.toString(16).padStart(digits, '0');
const grouped = (value) => value.toLocaleString('en');
const CLASSES = ['unknown', 'cacheable', 'cached', 'volatile', 'side effect', 'passed through'];

// The hierarchy: hosts are nodes without a function.
const nodes = [];
const byAddress = new Map();
for (const host of data.hosts) nodes.push({ name: host.name, host, children: [], open: true, level: 1 });
const tops = nodes.slice();
for (const f of data.functions) {
  const node = { f, children: [], open: true, parent: null, level: 1 };
  byAddress.set(f.sbdf, node);
  nodes.push(node);
}
for (const node of byAddress.values()) {
  const above = byAddress.get(node.f.physical ?? node.f.parent) ?? tops[node.f.host];
  node.parent = above ?? null;
  (above ? above.children : tops).push(node);
}
const MANY = 16;
const order = [];
const walk = (node, level) => {
  node.level = level;
  order.push(node);
  // Virtual functions of one device are all alike.
  if (node.f && node.children.length > MANY) node.open = false;
  for (const child of node.children) walk(child, level + 1);
};
for (const top of tops) walk(top, 1);
order.forEach((node, at) => { node.at = at; });

let selected = null;
let wanted = '';
const words = (node) => {
  if (!node.words) {
    const f = node.f;
    node.words = (f ? [f.sbdf, f.vendor + ':' + f.device, f.name, f.kind ?? ''].join(' ') : node.name).toLowerCase();
  }
  return node.words;
};

function shown() {
  const list = [];
  if (wanted) {
    const keep = new Set();
    let hits = 0;
    for (const node of order) {
      if (!words(node).includes(wanted)) continue;
      hits += 1;
      for (let at = node; at && !keep.has(at); at = at.parent) keep.add(at);
    }
    for (const node of order) if (keep.has(node)) list.push(node);
    byId('count').textContent = `${grouped(hits)} found`;
    return list;
  }
  byId('count').textContent = `${grouped(data.functions.length)} functions`;
  const add = (node) => {
    list.push(node);
    if (node.open) node.children.forEach(add);
  };
  tops.forEach(add);
  return list;
}

function row(node, current) {
  const f = node.f;
  const fold = node.children.length;
  const arrow = fold ? (wanted || node.open ? '▾' : '▸') : '';
  const state = fold ? ` aria-expanded="${Boolean(wanted || node.open)}"` : '';
  const what = f ? `<code>${f.sbdf}</code><span class="what">${html(f.name)} <span class="note">${f.vendor}:${f.device}${f.note ? ' · ' + html(f.note) : ''}</span></span>`
    : `<span class="what host">${html(node.name)}</span>`;
  const count = fold && !node.open && !wanted ? `<span class="note">+${fold}</span>` : '';
  return `<div class="row${f?.anomalies.length ? ' bad' : ''}" role="treeitem" aria-level="${node.level}" aria-selected="${node === selected}"${state} tabindex="${node === current ? 0 : -1}" data-at="${node.at}" style="padding-left:${(node.level - 1) * 1.1 + 0.3}em"><span class="arrow">${arrow}</span>${what}${count}</div>`;
}

let list = [];
function renderTree(current) {
  list = shown();
  const first = current && list.includes(current) ? current : list.includes(selected) ? selected : list[0];
  byId('tree').innerHTML = list.map((node) => row(node, first)).join('');
}
const element = (node) => byId('tree').querySelector(`[data-at="${node.at}"]`);
function focusOn(node) {
  byId('tree').querySelector('[tabindex="0"]')?.setAttribute('tabindex', -1);
  const target = element(node);
  target?.setAttribute('tabindex', 0);
  target?.focus();
}
function toggle(node, open) {
  if (!node.children.length || wanted) return;
  node.open = open ?? !node.open;
  renderTree(node);
  focusOn(node);
}
function select(node) {
  const before = selected;
  selected = node;
  if (before) element(before)?.setAttribute('aria-selected', false);
  if (node) element(node)?.setAttribute('aria-selected', true);
  byId('detail').innerHTML = node?.f ? functionPage(node.f) : overview(node?.host);
  byId('detail').scrollTop = 0;
  if (node?.f) startMap(node.f);
  startScales();
  history.replaceState(null, '', node?.f ? '#' + node.f.sbdf : '#');
}
function reveal(node) {
  for (let at = node.parent; at; at = at.parent) at.open = true;
  if (wanted && !list.includes(node)) { wanted = ''; byId('search').value = ''; }
  renderTree(node);
  select(node);
  element(node)?.scrollIntoView({ block: 'nearest' });
}

byId('tree').addEventListener('click', (event) => {
  const target = event.target.closest('[data-at]');
  if (!target) return;
  const node = order[target.dataset.at];
  if (event.target.closest('.arrow')) return toggle(node);
  select(node);
  focusOn(node);
});
byId('tree').addEventListener('keydown', (event) => {
  const target = event.target.closest('[data-at]');
  if (!target) return;
  const node = order[target.dataset.at];
  const at = list.indexOf(node);
  const go = (other) => other && focusOn(other);
  const keys = {
    ArrowDown: () => go(list[at + 1]),
    ArrowUp: () => go(list[at - 1]),
    Home: () => go(list[0]),
    End: () => go(list[list.length - 1]),
    ArrowRight: () => (node.children.length && !node.open && !wanted ? toggle(node, true) : go(node.children[0])),
    ArrowLeft: () => (node.children.length && node.open && !wanted ? toggle(node, false) : go(node.parent)),
    Enter: () => { select(node); focusOn(node); },
    ' ': () => { select(node); focusOn(node); },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
byId('search').addEventListener('input', () => {
  wanted = byId('search').value.trim().toLowerCase();
  renderTree();
});
byId('search').addEventListener('keydown', (event) => {
  if (event.key === 'Enter') {
    const hit = list.find((node) => node.f && words(node).includes(wanted));
    if (hit) { select(hit); focusOn(hit); }
  }
  if (event.key === 'Escape') { byId('search').value = ''; wanted = ''; renderTree(); }
});
document.addEventListener('keydown', (event) => {
  if (event.key === '/' && event.target !== byId('search')) {
    event.preventDefault();
    byId('search').focus();
  }
});
const setAll = (open) => {
  for (const node of order) node.open = open || !node.parent;
  renderTree();
};
byId('unfold').addEventListener('click', () => setAll(true));
byId('fold').addEventListener('click', () => setAll(false));
byId('home').addEventListener('click', () => select(null));

const list2 = (pairs) => `<dl>${pairs.filter(([, value]) => value !== null && value !== undefined && value !== '').map(([name, value]) => `<dt>${html(name)}</dt><dd>${html(value)}</dd>`).join('')}</dl>`;
function table(heads, rows) {
  if (!rows.length) return '';
  const cells = (tag, row) => row.map((cell) => `<${tag}>${html(cell ?? '')}</${tag}>`).join('');
  return `<div class="scroll"><table><thead><tr>${cells('th', heads)}</tr></thead><tbody>${rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('')}</tbody></table></div>`;
}
function size(bytes) {
  let value = Number(bytes), unit = 0;
  while (value >= 1024 && unit < 6) { value /= 1024; unit += 1; }
  return `${Number(value.toFixed(1))} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][unit]}`;
}
function time(ns) {
  return ns < 1000 ? `${ns} ns` : ns < 1e6 ? `${(ns / 1e3).toFixed(1)} us` : `${(ns / 1e6).toFixed(2)} ms`;
}

// Configuration space.
function spaceOf(f) {
  const space = data.spaces[f.space];
  if (!space || space.ready) return space;
  space.bytes = new Array(space.size).fill(0);
  for (let at = 0; at < space.data.length; at += 2) {
    const text = space.data[at + 1];
    for (let i = 0; i < text.length; i += 2) space.bytes[space.data[at] + i / 2] = parseInt(text.substr(i, 2), 16);
  }
  space.known = new Uint8Array(space.size);
  const known = data.known[space.knownRuns];
  for (let at = 0; at < known.length; at += 2) space.known.fill(1, known[at], known[at + 1]);
  space.classes = new Uint8Array(space.size);
  const runs = data.classes[space.classRuns];
  for (let at = 0, byte = 0; at < runs.length; at += 2) {
    space.classes.fill(runs[at + 1], byte, byte + runs[at]);
    byte += runs[at];
  }
  space.registers = [];
  space.owner = new Int32Array(space.size).fill(-1);
  const layout = data.layouts[space.layout];
  for (let at = 0; at < layout.length; at += 3) {
    const register = { offset: layout[at], length: layout[at + 1], name: data.names[layout[at + 2]] };
    space.owner.fill(space.registers.length, register.offset, register.offset + register.length);
    space.registers.push(register);
  }
  space.ready = true;
  return space;
}
function value(space, offset, length) {
  const bytes = [];
  for (let at = offset; at < offset + length; at += 1) bytes.push(space.known[at] ? hex(space.bytes[at], 2) : '--');
  return length <= 8 ? '0x' + bytes.reverse().join('') : bytes.slice(0, 16).join(' ') + (length > 16 ? ' …' : '');
}
const WIDTH = 32;
function mapOf(space) {
  let out = '';
  let gap = -1;
  const end = (at) => {
    if (gap >= 0) out += `<div class="gap">${hex(gap, 3)}–${hex(at - 1, 3)}: in no known structure</div>`;
    gap = -1;
  };
  for (let line = 0; line < space.size; line += WIDTH) {
    let used = false;
    for (let at = line; at < line + WIDTH && at < space.size; at += 1) used ||= space.owner[at] >= 0 || space.classes[at] > 0 || (space.known[at] && space.bytes[at] !== 0);
    if (!used) { if (gap < 0) gap = line; continue; }
    end(line);
    out += `<div class="line"><span class="mono">${hex(line, 3)}</span>`;
    for (let at = line; at < line + WIDTH && at < space.size; at += 1) out += `<b class="c${space.classes[at]}" data-byte="${at}">${space.known[at] ? hex(space.bytes[at], 2) : ''}</b>`;
    out += '</div>';
  }
  end(space.size);
  return out;
}
function startMap(f) {
  const map = byId('map');
  if (!map) return;
  const space = spaceOf(f);
  let at = 0;
  const show = (byte) => {
    at = Math.max(0, Math.min(space.size - 1, byte));
    const owner = space.owner[at];
    const register = space.registers[owner] ?? { offset: at, length: 1, name: 'in no known structure' };
    map.querySelectorAll('.hot').forEach((cell) => cell.classList.remove('hot'));
    for (let i = register.offset; i < register.offset + register.length; i += 1) map.querySelector(`[data-byte="${i}"]`)?.classList.add('hot');
    byId('readout').innerHTML = `<strong>${html(register.name)}</strong> <code>${hex(register.offset, 3)}${register.length > 1 ? '–' + hex(register.offset + register.length - 1, 3) : ''}</code> = <code>${value(space, register.offset, register.length)}</code><br>byte <code>${hex(at, 3)}</code>: <code>${space.known[at] ? hex(space.bytes[at], 2) : 'not known'}</code>, ${CLASSES[space.classes[at]]}`;
  };
  const over = (event) => { if (event.target.dataset?.byte) show(Number(event.target.dataset.byte)); };
  map.addEventListener('mouseover', over);
  map.addEventListener('click', over);
  map.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: WIDTH, ArrowUp: -WIDTH }[event.key];
    if (event.key === 'Home') show(0);
    else if (event.key === 'n') show((space.registers.find((register) => register.offset > at) ?? space.registers[0]).offset);
    else if (step) show(at + step);
    else return;
    event.preventDefault();
    map.querySelector(`[data-byte="${at}"]`)?.scrollIntoView({ block: 'nearest' });
  });
  show(0);
}

function functionPage(f) {
  const space = spaceOf(f);
  let out = `<h2><code>${f.sbdf}</code> ${html(f.name)}</h2>`;
  out += list2([['IDs', `${f.vendor}:${f.device}`], ['kind', f.kind], ['below', f.parent], ['virtual function of', f.physical], ...f.facts]);
  if (f.anomalies.length) out += `<h3>Anomalies</h3><ul class="bad">${f.anomalies.map((text) => `<li>${html(text)}</li>`).join('')}</ul>`;
  if (space) {
    const counts = new Array(6).fill(0);
    space.classes.forEach((kind) => { counts[kind] += 1; });
    out += '<h3>Configuration space</h3><div class="legend">' + CLASSES.map((name, kind) => `<span><i class="c${kind}"></i>${name} ${grouped(counts[kind])}</span>`).join('') + '</div>';
    out += `<div class="readout" id="readout" role="status"></div><div class="map" id="map" tabindex="0" role="application" aria-label="Map of configuration space: arrow keys move by bytes, n to the next register">${mapOf(space)}</div>`;
    out += '<details><summary>All registers</summary>' + table(['offset', 'register', 'value', 'class'], space.registers.map((register) => [hex(register.offset, 3), register.name, value(space, register.offset, register.length), CLASSES[space.classes[register.offset]]])) + '</details>';
  }
  out += f.bars.length ? '<h3>BARs</h3>' + table(['BAR', 'kind', 'address', 'size'], f.bars.map((bar) => [bar.index, bar.kind, bar.address ?? 'disabled', bar.size ? size(BigInt(bar.size)) : 'not known'])) : '';
  out += f.windows.length ? '<h3>Windows</h3>' + table(['window', 'from', 'to'], f.windows.map((one) => [one.kind, one.base, one.limit])) : '';
  return out + scales(f);
}

// Addresses, to scale.
const near = (f, host) => !host || data.hosts[f.host] === host;
function scales(only, host) {
  let out = '';
  data.scales.forEach((scale, number) => {
    const at = (text) => BigInt(text);
    let boxes = [];
    for (const f of data.functions) {
      if (f.host !== scale.host || !near(f, host)) continue;
      const depth = (byAddress.get(f.sbdf)?.level ?? 2) - 1;
      for (const one of f.windows) boxes.push({ f, start: at(one.base), end: at(one.limit), kind: 'window', lane: depth, what: `${f.sbdf} window ${one.base}–${one.limit}`, space: one.kind === 'io' ? 'io' : 'mem' });
      for (const bar of f.bars) if (bar.address && bar.size) boxes.push({ f, start: at(bar.address), end: at(bar.address) + at(bar.size) - 1n, kind: bar.index >= 7 ? 'vf' : 'bar', lane: 0, what: `${f.sbdf} BAR ${bar.index}, ${bar.address}, ${size(bar.size)}`, space: bar.kind === 'io' ? 'io' : 'mem' });
    }
    const [from, to] = [at(scale.base), at(scale.limit)];
    boxes = boxes.filter((box) => box.space === scale.space && box.start >= from && box.end <= to);
    if (!boxes.length || (only && !boxes.some((box) => box.f === only))) return;
    const first = boxes.reduce((low, box) => (box.start < low ? box.start : low), to);
    const last = boxes.reduce((high, box) => (box.end > high ? box.end : high), from);
    const whole = Number(last - first + 1n);
    const lanes = [...new Set(boxes.map((box) => box.lane))].filter((lane) => lane).sort((a, b) => a - b);
    const top = (box) => (box.lane ? lanes.indexOf(box.lane) : lanes.length) * 14 + 2;
    const rects = boxes.map((box) => {
      const x = (Number(box.start - first) / whole) * 1000;
      const width = Math.max(1.5, (Number(box.end - box.start + 1n) / whole) * 1000);
      return `<rect class="${box.kind}${box.f === only ? ' hot' : ''}" x="${x.toFixed(2)}" y="${top(box)}" width="${width.toFixed(2)}" height="12" data-sbdf="${box.f.sbdf}"><title>${html(box.what)}</title></rect>`;
    });
    const share = whole / Number(to - from + 1n);
    out += `<h3>${html(scale.name)}</h3><svg viewBox="0 0 1000 ${(lanes.length + 1) * 14 + 2}" preserveAspectRatio="none" style="height:${(lanes.length + 1) * 22 + 4}px" role="img" aria-label="${boxes.length} BARs and windows to scale">${rects.join('')}</svg><div class="ends mono"><span>0x${hex(first, 1)}</span><span>${size(whole)}${scale.window && share < 1 ? `, ${(share * 100).toPrecision(2)} % of ${size(to - from + 1n)}` : ''}</span><span>0x${hex(last, 1)}</span></div>`;
    out += number < 0 ? '' : '<div class="legend"><span><i class="window"></i>bridge window</span><span><i class="bar"></i>BAR</span><span><i class="vf"></i>VF BARs (one VF)</span></div>'.replaceAll('class="window"', 'style="background:var(--cacheable)"').replaceAll('class="bar"', 'style="background:var(--cached)"').replaceAll('class="vf"', 'style="background:var(--pass)"');
  });
  return out;
}
function startScales() {
  byId('detail').querySelectorAll('svg').forEach((svg) => svg.addEventListener('click', (event) => {
    const node = byAddress.get(event.target.dataset?.sbdf);
    if (node) reveal(node);
  }));
}

const amounts = (rows, show) => {
  const most = Math.max(1, ...rows.map((row) => row.value));
  return rows.map((row) => `<div class="amount"><span>${html(row.name)}</span><div><i class="part" style="width:${((row.part ?? 0) / most) * 100}%"></i><i style="width:${((row.value - (row.part ?? 0)) / most) * 100}%"></i></div><span class="mono">${show(row.value)}</span></div>`).join('');
};
function overview(host) {
  let out = host ? `<h2>${html(host.name)}</h2>` + list2(host.facts) : '<h2>Overview</h2>' + list2(data.facts);
  if (!host) {
    if (data.anomalies.length) out += `<h3>Anomalies</h3><ul class="bad">${data.anomalies.map((text) => `<li>${html(text)}</li>`).join('')}</ul>`;
    if (data.phases.length) out += '<h3>Phases</h3>' + amounts(data.phases, time) + '<div class="legend"><span><i style="background:var(--volatile)"></i>in configuration accesses</span><span><i style="background:var(--cached)"></i>the rest</span></div>';
    if (data.amounts.length) out += '<h3>Accesses</h3>' + amounts(data.amounts, grouped);
    for (const extra of data.tables) if (extra.rows.length) out += `<h3>${html(extra.title)}</h3>` + table(extra.heads, extra.rows);
  }
  return out + scales(null, host);
}

renderTree();
const asked = byAddress.get(decodeURIComponent(location.hash.slice(1)));
if (asked) reveal(asked); else select(null);
document.documentElement.dataset.took = Math.round(performance.now() - began);
document.documentElement.dataset.ready = Math.round(performance.now());
