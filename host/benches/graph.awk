# Draws lines of x, SETs a second and GETs a second, tab-separated, as SVG; both axes are logarithmic. Variable: title.
function lg(x) { return log(x) / log(10) }
function px(x) { return 70 + 500 * (x1 == x0 ? 0.5 : (lg(x) - x0) / (x1 - x0)) }
function py(y) { return 260 - 220 * (lg(y) - y0) / (y1 - y0) }
function short(v) { return v >= 1e6 ? v / 1e6 "M" : v >= 1e3 ? v / 1e3 "k" : v }
function line(column, colour, name, at,    i, points) {
    for (i = 1; i <= n; i++) points = points sprintf("%.1f,%.1f ", px(x[i]), py(y[column, i]))
    printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", points, colour
    printf "<text x=\"%d\" y=\"24\" fill=\"%s\">%s</text>\n", at, colour, name
}
{ n++; x[n] = $1; y[1, n] = $2; y[2, n] = $3 }
END {
    x0 = lg(x[1]); x1 = lg(x[n]); low = high = y[1, 1]
    for (i = 1; i <= n; i++) for (c = 1; c <= 2; c++) { if (y[c, i] < low) low = y[c, i]; if (y[c, i] > high) high = y[c, i] }
    y0 = int(lg(low)); y1 = int(lg(high)) + 1
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 600 310\" font-family=\"sans-serif\" font-size=\"12\">"
    print "<rect width=\"600\" height=\"310\" fill=\"white\"/>"
    for (e = y0; e <= y1; e++) {
        printf "<line x1=\"70\" x2=\"570\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>", py(10 ^ e), py(10 ^ e)
        printf "<text x=\"62\" y=\"%.1f\" text-anchor=\"end\">%s/s</text>\n", py(10 ^ e) + 4, short(10 ^ e)
    }
    for (i = 1; i <= n; i++) printf "<text x=\"%.1f\" y=\"280\" text-anchor=\"middle\">%s</text>\n", px(x[i]), short(x[i])
    printf "<text x=\"320\" y=\"302\" text-anchor=\"middle\">%s</text>\n", title
    line(1, "#c0392b", "SET", 80); line(2, "#2471a3", "GET", 120)
    print "</svg>"
}
