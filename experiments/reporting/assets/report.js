// The games of any cell, from the data beside it: nothing is fetched.
(() => {
  const holder = document.getElementById("cells");
  if (!holder) return;
  const cells = JSON.parse(holder.textContent);
  const fields = ["agent", "seat", "rho", "opponent"];
  const selects = fields.map((name) => document.getElementById("pick-" + name));
  const place = document.getElementById("picked");
  const SVG = "http://www.w3.org/2000/svg";

  const matching = (upto) => cells.filter((cell) => fields.every((name, i) => i >= upto || cell[name] === selects[i].value));

  function fill(from) {
    for (let i = from; i < fields.length; i++) {
      const before = selects[i].value;
      const options = [...new Set(matching(i).map((cell) => cell[fields[i]]))];
      selects[i].replaceChildren(...options.map((text) => new Option(text, text)));
      if (options.includes(before)) selects[i].value = before;
    }
    show();
  }

  const element = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const shape = (tag, kind, attributes) => {
    const made = document.createElementNS(SVG, tag);
    made.setAttribute("class", kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const other = (seat) => (seat === "buyer" ? "seller" : "buyer");
  const mover = (game, turn) => (turn % 2 ? game.starter : other(game.starter));

  function picture(game) {
    const width = 320, height = 132, margin = 12;
    const prices = [game.low, game.high, ...game.offers.map((offer) => offer[1])];
    const low = Math.min(...prices), high = Math.max(...prices), last = Math.max(2, game.turns);
    const x = (turn) => margin + ((width - 2 * margin) * (turn - 1)) / (last - 1);
    const y = (price) => height - margin - ((height - 2 * margin) * (price - low)) / Math.max(high - low, 1e-9);
    const drawn = shape("svg", "offers", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "offers of the game" });
    for (const [seat, price] of [["seller", game.low], ["buyer", game.high]])
      drawn.append(shape("line", "limit " + seat, { x1: 0, x2: width, y1: y(price), y2: y(price) }));
    for (const seat of ["buyer", "seller"]) {
      const mine = game.offers.filter((offer) => mover(game, offer[0]) === seat);
      drawn.append(shape("polyline", seat, { points: mine.map(([turn, price]) => `${x(turn)},${y(price)}`).join(" ") }));
      for (const [turn, price] of mine)
        drawn.append(
          seat === "buyer"
            ? shape("circle", seat, { cx: x(turn), cy: y(price), r: 2.6 })
            : shape("rect", seat, { x: x(turn) - 2.3, y: y(price) - 2.3, width: 4.6, height: 4.6 })
        );
    }
    if (game.price !== null) drawn.append(shape("circle", "deal", { cx: x(game.turns), cy: y(game.price), r: 5 }));
    return drawn;
  }

  function card(game) {
    const made = element("article", "", "game");
    made.append(element("h4", `${game.what}: ${game.price === null ? "no deal" : "deal at " + game.price.toFixed(2)}`));
    made.append(picture(game), element("p", game.facts, "note"));
    const lines = document.createElement("ol");
    const offered = new Map(game.offers);
    for (let turn = 1; turn <= game.turns; turn++) {
      const said = offered.has(turn)
        ? `offers ${offered.get(turn).toFixed(2)}`
        : turn === game.turns && game.price !== null ? "accepts" : "wastes the turn (invalid move)";
      lines.append(element("li", `${mover(game, turn)} ${said}`));
    }
    const folded = document.createElement("details");
    folded.append(element("summary", "every offer"), lines);
    made.append(folded, element("code", game.replay));
    return made;
  }

  function show() {
    const cell = matching(fields.length)[0];
    place.replaceChildren(...(cell ? cell.games.map(card) : []));
  }

  selects.forEach((select, i) => select.addEventListener("change", () => fill(i + 1)));
  fill(0);
})();
