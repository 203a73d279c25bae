// What is wrong with the page that is open: its width, its pictures, the contrast of its text. Called by look_at_site.py.
() => {
  const found = [], seen = new Set();
  const parse = c => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3]));
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = c => { if (c.startsWith('rgb')) return parse(c);
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const back = e => { const layers = []; for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]); };
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll('main *')].find(e => e.getBoundingClientRect().right > width + 1 &&
      !e.closest('.md-typeset__scrollwrap, pre, .highlight, .md-sidebar'));
    found.push(`wider than its window: ${document.documentElement.scrollWidth} px, ${wide ? wide.outerHTML.slice(0, 80) : '?'}`);
  }
  for (const img of document.images) if (img.complete && !img.naturalWidth) found.push(`no picture: ${img.src}`);
  const walker = document.createTreeWalker(document.querySelector('.md-content, main') || document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
    const style = getComputedStyle(e), below = back(e), colour = over(rgba(style.color), below);
    const [a, b] = [light(colour), light(below)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const key = `${style.color} on ${below.map(Math.round)}`;
    if (ratio < (large ? 3 : 4.5) && !seen.has(key)) { seen.add(key);
      found.push(`contrast ${ratio.toFixed(2)}: ${key}, <${e.tagName.toLowerCase()} class="${e.className}"> ` +
        walker.currentNode.data.trim().slice(0, 30)); }
  }
  return found;
}
