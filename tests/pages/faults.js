({  // each function gives a list of what is wrong with the page that it is asked on
contrast: () => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number);
    return [...m.slice(0, 3).map(v => c.startsWith('color(srgb') ? v * 255 : v), m[3] ?? 1] }
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]))
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const behind = e => { if (!e) return [255, 255, 255]
    return over(parse(getComputedStyle(e).backgroundColor), behind(e.parentElement)) }
  const found = []
  for (const e of document.body.querySelectorAll('*')) {
    if (['TITLE', 'DESC'].includes(e.tagName.toUpperCase()) || !e.checkVisibility()) continue
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue
    const drawn = e.tagName === 'text', style = getComputedStyle(e), cell = e.previousElementSibling
    let ground = behind(drawn ? e.closest('svg').parentElement : e)
    if (drawn && e.closest('svg').innerHTML.includes('confusion') && cell?.tagName === 'rect') {
      const paint = getComputedStyle(cell), c = parse(paint.fill)
      ground = over([...c.slice(0, 3), Number(paint.fillOpacity)], ground)
    }
    const a = light(over(parse(drawn ? style.fill : style.color), ground)), b = light(ground)
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (ratio < 4.5) found.push([e.tagName, e.textContent.trim().slice(0, 40), ratio])
  }
  return found },
outside: () => [...document.body.querySelectorAll('*')]
  .filter(e => e.checkVisibility() && !e.closest('.scroll *') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => [e.tagName, e.className.baseVal ?? e.className, e.textContent.slice(0, 40)]),
covered: () => { const found = []
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')]
    const boxes = texts.map(t => t.getBoundingClientRect())
    boxes.forEach((b, i) => {
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 2 || b.bottom > frame.bottom + 2)
        found.push(['outside', svg.getAttribute('aria-labelledby'), texts[i].textContent])
      boxes.slice(0, i).forEach((o, j) => {
        if (Math.min(b.right, o.right) - Math.max(b.left, o.left) > 1 &&
            Math.min(b.bottom, o.bottom) - Math.max(b.top, o.top) > 4)
          found.push(['covered', svg.getAttribute('aria-labelledby'), texts[i].textContent, texts[j].textContent])
      })
    })
  }
  return found }
})
