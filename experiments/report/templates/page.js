'use strict';
(() => {
  // What is in a page of a report, made into a tool. Without it, all is there.
  const MOST = 10;  // lines in the box of values
  const WIDTHS = [1, 3, 5, 9, 15, 31];
  const INK = '#1b1f24', GRID = '#d9dee4';
  const main = document.querySelector('main');
  const hidden = new Set();
  const refreshes = [];
  const refresh = () => refreshes.forEach(each => each());

  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === 'function') node.addEventListener(name, value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };

  const save = (name, type, text) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    make('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };

  const fileName = (title, ending) =>
    `${title.replace(/[^\p{L}\p{N}]+/gu, '_').replace(/^_|_$/g, '')}.${ending}`;

  const csv = rows => rows.map(row => row.map(
    cell => /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell
  ).join(',') + '\r\n').join('');

  const toggle = (name, shown) => {
    if (shown) hidden.delete(name); else hidden.add(name);
    refresh();
  };

  // Tables.

  const nameOf = row => row.cells[0].textContent.trim();
  const ORDERS = { none: 'ascending', ascending: 'descending' };

  const sortable = (table, status) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const texts = new Map(original.map(
        row => [row, row.cells[place].textContent.trim()]));
      const there = row => !['-', ''].includes(texts.get(row));
      const number = row => parseFloat(texts.get(row));
      const numeric = original.every(
        row => !there(row) || Number.isFinite(number(row)));
      const compare = (a, b) => numeric ? number(a) - number(b) :
        texts.get(a).localeCompare(texts.get(b), undefined, { numeric: true });
      const sort = () => {
        const order = ORDERS[head.getAttribute('aria-sort') || 'none'] || 'none';
        heads.forEach(other => other.removeAttribute('aria-sort'));
        let rows = original;
        if (order !== 'none') {
          head.setAttribute('aria-sort', order);
          const sign = order === 'ascending' ? 1 : -1;
          rows = [...original.filter(there).sort((a, b) => sign * compare(a, b)),
            ...original.filter(row => !there(row))];
        }
        body.append(...rows);
        status.textContent = order === 'none' ? 'In the first order.' :
          `Sorted by ${head.textContent}, ${order}.`;
      };
      const button = make('button', { type: 'button', click: sort });
      button.append(...head.childNodes);
      head.append(button);
    });
  };

  const tableText = table => {
    const rows = [table.tHead.rows[0],
      ...[...table.tBodies[0].rows].filter(row => !row.hidden)];
    const texts = rows.map(
      row => [...row.cells].map(cell => cell.textContent.trim()));
    const split = texts[0].map((_, place) => texts.some(
      row => row[place].includes(' ± ')));
    return csv(texts.map((row, line) => row.flatMap((cell, place) => {
      if (!split[place]) return [cell];
      const [mean, error = ''] = cell.split(' ± ');
      return line ? [mean, error] : [cell, `${cell} standard error`];
    })));
  };

  const equip = scroll => {
    const table = scroll.querySelector('table');
    const rows = [...table.tBodies[0].rows];
    const title = scroll.getAttribute('aria-label');
    const count = make('span', { class: 'soft', role: 'status' });
    const heard = make('span', { class: 'heard', role: 'status' });
    const filter = make('input', {
      type: 'search', placeholder: 'Filter, as in cagrad mgda',
      'aria-label': `Filter the rows of ${title}`, input: () => show(),
    });
    const show = () => {
      const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      rows.forEach(row => {
        const name = nameOf(row).toLowerCase();
        row.hidden = hidden.has(nameOf(row)) ||
          words.length > 0 && !words.some(word => name.includes(word));
      });
      const shown = rows.filter(row => !row.hidden).length;
      count.textContent =
        shown === rows.length ? '' : `${shown} of ${rows.length} rows`;
    };
    const tools = make('div', { class: 'tools' });
    if (rows.length > 3) tools.append(filter);
    tools.append(make('button', {
      type: 'button', 'aria-label': `Download ${title} as CSV`,
      click: () => save(fileName(title, 'csv'), 'text/csv', tableText(table)),
    }, 'Download CSV'), count, heard);
    scroll.before(tools);
    if (rows.length > 1) sortable(table, heard);
    refreshes.push(show);
  };

  // Pictures.

  const smooth = (values, width) => values.map((own, place) => {
    if (Number.isNaN(own)) return own;
    const reach = Math.min(
      (width - 1) / 2, place, values.length - 1 - place);
    const near = values.slice(place - reach, place + reach + 1)
      .filter(value => !Number.isNaN(value));
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });

  const numbers = text => text.split(' ').map(Number);
  const brief = value => String(Number(value.toPrecision(4)));

  const readCurves = svg => {
    const found = new Map();
    svg.querySelectorAll('[data-curve]').forEach(group => {
      const { curve, part } = group.dataset;
      if (!found.has(curve)) found.set(curve, { groups: [] });
      const own = found.get(curve);
      own.groups.push(group);
      if (part === 'band') own.band = group;
      if (part === 'line') {
        own.label = group.dataset.label;
        own.steps = numbers(group.dataset.steps);
        own.mean = numbers(group.dataset.mean);
        own.error = group.dataset.error ? numbers(group.dataset.error) : [];
        own.path = group.querySelector('path');
        own.color = own.path && own.path.style.stroke;
      }
    });
    return [...found.values()];
  };

  const placing = svg => {
    const [x0, left, x1, right, y0, bottom, y1, top] = numbers(svg.dataset.axes);
    const log = svg.dataset.scale === 'log' ? Math.log10 : value => value;
    const y = value => bottom +
      (log(value) - log(y0)) / (log(y1) - log(y0)) * (top - bottom);
    return {
      top, bottom, left, right,
      x: step => left + (step - x0) / (x1 - x0) * (right - left),
      y: value => Math.min(Math.max(y(value) || 0, -1e4), 1e4),
      step: place => x0 + (place - left) / (right - left) * (x1 - x0),
    };
  };

  const outline = (points, start = 'M') => points.map(
    ([x, y], i) => `${i ? 'L' : start} ${x.toFixed(1)} ${y.toFixed(1)}`
  ).join(' ');

  const redraw = (curve, place, width) => {
    if (curve.steps.length < 3 || !curve.path) return;
    const mean = curve.shown = smooth(curve.mean, width);
    const kept = mean.map((_, i) => i).filter(i => !Number.isNaN(mean[i]));
    curve.path.setAttribute('d', outline(
      kept.map(i => [place.x(curve.steps[i]), place.y(mean[i])])));
    const use = curve.band && curve.band.querySelector('use');
    if (!use) return;
    const error = smooth(curve.error, width);
    const sided = kept.filter(i => !Number.isNaN(error[i]));
    const lift = parseFloat(use.getAttribute('y') || '0');
    const side = sign => sided.map(i => [
      place.x(curve.steps[i]), place.y(mean[i] + sign * error[i]) - lift]);
    curve.band.querySelector('path').setAttribute(
      'd', `${outline([...side(-1), ...side(1).reverse()])} z`);
  };

  const alone = svg => {
    const copy = svg.cloneNode(true);
    copy.querySelectorAll('[hidden], .guide, .mover').forEach(
      node => node.remove());
    const [, , width, height] = numbers(svg.getAttribute('viewBox'));
    copy.setAttribute('width', `${width}pt`);
    copy.setAttribute('height', `${height}pt`);
    return new XMLSerializer().serializeToString(copy)
      .replaceAll('var(--grid)', GRID).replaceAll('currentColor', INK);
  };

  const panel = svg => {
    const title = svg.getAttribute('aria-label');
    const figure = make('figure', { class: 'panel' });
    svg.before(figure);
    const under = make('div', { class: 'under' });
    figure.append(svg, under);
    const download = (ending, type, text) => make('button', {
      type: 'button', 'aria-label': `Download ${title} as ${ending}`,
      click: () => save(fileName(title, ending.toLowerCase()), type, text()),
    }, ending);
    const curves = svg.dataset.axes ? readCurves(svg) : [];
    if (curves.length) {
      inspect(svg, figure, under, curves, title);
      under.append(download('CSV', 'text/csv', () => csv([
        ['name', svg.dataset.xlabel, 'mean', 'standard error'],
        ...curves.filter(curve => !hidden.has(curve.label)).flatMap(
          curve => curve.steps.map((step, i) => [
            curve.label, step, curve.mean[i],
            curve.error[i] ?? NaN].map(cell => Number.isNaN(cell) ? '' :
            String(cell)))),
      ])));
    }
    under.append(download('SVG', 'image/svg+xml', () => alone(svg)));
    refreshes.push(() => {
      figure.hidden = hidden.has(title);
      curves.forEach(curve => curve.groups.forEach(
        group => group.toggleAttribute('hidden', hidden.has(curve.label))));
    });
  };

  const inspect = (svg, figure, under, curves, title) => {
    const place = placing(svg);
    const steps = [...new Set(curves.flatMap(curve => curve.steps))]
      .sort((a, b) => a - b);
    const guide = document.createElementNS(svg.namespaceURI, 'line');
    for (const [name, value] of Object.entries({
      class: 'guide', stroke: 'currentColor', 'stroke-width': '0.8',
      y1: place.top, y2: place.bottom, hidden: '',
    })) guide.setAttribute(name, value);
    svg.append(guide);
    const box = make('div', { class: 'values', hidden: '' });
    figure.append(box);
    const close = () => {
      box.hidden = true;
      guide.setAttribute('hidden', '');
    };
    const valueAt = (curve, step) => {
      const i = curve.steps.indexOf(step);
      const mean = (curve.shown || curve.mean)[i];
      return i < 0 || Number.isNaN(mean) ? null :
        { curve, mean, error: curve.error[i] };
    };
    const show = (step, height) => {
      let found = curves.filter(curve => !hidden.has(curve.label))
        .map(curve => valueAt(curve, step)).filter(Boolean);
      const all = found.length;
      if (height !== undefined) {
        const far = each => Math.abs(place.y(each.mean) - height);
        found.sort((a, b) => far(a) - far(b));
      }
      found = found.slice(0, MOST).sort((a, b) => b.mean - a.mean);
      const left = place.x(step);
      guide.setAttribute('x1', left);
      guide.setAttribute('x2', left);
      guide.removeAttribute('hidden');
      const text = ({ mean, error }) => brief(mean) +
        (error > 0 ? ` ± ${Number(error.toPrecision(2))}` : '');
      box.replaceChildren(
        `${svg.dataset.xlabel} ${brief(step)}`,
        ...found.map(each => {
          const line = make('i', {});
          line.style.background = each.curve.color;
          return make('div', {}, line, each.curve.label || title,
            make('b', {}, text(each)));
        }),
        all > found.length ? `and ${all - found.length} more` : '');
      const share = left / numbers(svg.getAttribute('viewBox'))[2];
      box.style.left = share < .5 ? `${100 * share + 3}%` : '';
      box.style.right = share < .5 ? '' : `${100 * (1 - share) + 3}%`;
      box.hidden = false;
      return `${svg.dataset.xlabel} ${brief(step)}: ` + found.map(
        each => `${each.curve.label} ${text(each)}`).join(', ');
    };
    if (steps.length > 1) {
      const range = make('input', {
        type: 'range', min: 0, max: steps.length - 1, value: steps.length - 1,
        'aria-label': `Values of ${title}`, blur: close,
        input: () => range.setAttribute(
          'aria-valuetext', show(steps[range.value])),
      });
      range.setAttribute(
        'aria-valuetext', `${svg.dataset.xlabel} ${brief(steps.at(-1))}`);
      under.append(range);
    }
    svg.addEventListener('pointermove', event => {
      const matrix = svg.getScreenCTM().inverse();
      const at = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(matrix);
      const step = place.step(at.x);
      show(steps.reduce((best, each) =>
        Math.abs(each - step) < Math.abs(best - step) ? each : best), at.y);
    });
    svg.addEventListener('pointerleave', close);
    figure.addEventListener('keydown', event => {
      if (event.key === 'Escape') close();
    });
    let drawn = 1;
    refreshes.push(() => {
      if (drawn === width) return;
      drawn = width;
      curves.forEach(curve => redraw(curve, place, width));
    });
  };

  const legend = list => [...list.children].map(item => {
    const name = item.textContent.trim();
    const button = make('button', {
      type: 'button', title: 'Show or hide',
      click: () => toggle(name, hidden.has(name)),
    });
    button.append(...item.childNodes);
    item.append(button);
    refreshes.push(
      () => button.setAttribute('aria-pressed', String(!hidden.has(name))));
    return name;
  });

  // The page.

  let width = 1;
  const tables = [...main.querySelectorAll('.scroll')].filter(
    each => each.querySelector('tbody tr'));
  tables.forEach(equip);
  const labels = [...main.querySelectorAll('.legend')].flatMap(legend);
  const svgs = [...main.querySelectorAll('.panels > svg')];
  const titles = svgs.map(svg => svg.getAttribute('aria-label'));
  const drawn = svgs.some(svg => svg.dataset.axes);
  svgs.forEach(panel);

  const rows = each => [...each.querySelectorAll('tbody tr')].map(nameOf);
  const known = new Set([...labels, ...titles]);
  const names = [...new Set([
    ...tables.slice(0, 1).flatMap(rows),
    ...tables.flatMap(rows).filter(name => known.has(name))])];
  const bar = make('div', {
    class: 'bar', role: 'group', 'aria-label': 'What the page shows',
  });
  if (names.length > 1) {
    const boxes = names.map(name => [name, make('input', {
      type: 'checkbox', change: event => toggle(name, event.target.checked),
    })]);
    const all = shown => () => {
      names.forEach(name => shown ? hidden.delete(name) : hidden.add(name));
      refresh();
    };
    const count = make('span', {});
    bar.append(make('details', {}, make('summary', {}, count),
      make('fieldset', { class: 'names' },
        make('legend', { class: 'heard' }, 'Rows and lines that are shown'),
        make('button', { type: 'button', click: all(true) }, 'All'),
        make('button', { type: 'button', click: all(false) }, 'None'),
        ...boxes.map(([name, box]) => make('label', {}, box, ` ${name}`)))));
    refreshes.push(() => {
      boxes.forEach(([name, box]) => { box.checked = !hidden.has(name); });
      const shown = names.filter(name => !hidden.has(name)).length;
      count.textContent = `Shown: ${shown} of ${names.length}`;
    });
  }
  if (drawn) {
    bar.append(make('label', {}, 'Smoothing ', make('select', {
      change: event => {
        width = Number(event.target.value);
        refresh();
      },
    }, ...WIDTHS.map(each => make('option', { value: each },
      each === 1 ? 'none' : `mean of ${each} points`)))));
  }
  const lead = main.querySelector('.soft') || main.firstElementChild;
  if (bar.childElementCount) lead.after(bar);
  refresh();
})();
