"""What the HTML pages share: style, number formats, inline SVG, small pictures. No torch, no matplotlib."""
