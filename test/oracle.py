"""When schedules run, worked out by other means than taskshed's: the expectations of test/t/066_oracle.pl.

    python3 test/oracle.py FOLDER HORIZON

writes FOLDER/cron.tsv, random expressions with a zone, a start and the next ten times, and
FOLDER/every.tsv, random intervals likewise; on its output how many there are of each kind.

What an expression matches is asked of croniter, which knows nothing of zones here: it is given local
times.  Zones come from Python's zoneinfo, as a table of the periods in which the offset is the same,
and what taskshed promises about them is stated once more below (see "instants").

ORACLE_SEED and ORACLE_TRIPLES say which, and how many.

Where croniter means something else by an expression, or has a fault, it is asked something that it
answers as we mean it; each of these is counted:

    days by "and"       Vixie's rule: if the field of the day of the month or that of the weekday begins
                        with * they must both match.  croniter looks whether the field allows all days
                        instead, so it is told which rule is meant.
    days by "or"        That means nothing else than ours if both fields leave some days out; otherwise the
                        result is every day.  If the day of the month never comes, croniter finds nothing at all,
                        and is asked for the weekday alone.
    nth with days       croniter takes "or" for "and" if there is a #: it is asked for each field alone.
    nth with weekdays   It refuses these in one list: asked for each alone.
    several last days   It goes wrong if L, or one of 29 to 31, is not alone: asked for each day alone.
    nearest weekday     It has no W: asked for the days around, of which the right one is picked here.
    last weekday        friL is its L5.
    step from a number  In the field of the weekday it goes on to 7, a second Sunday.
    range of one        Newer ones take 4-4, and 59/2 of the minute, for the whole round: asked for 4, and 59.
    ? and $             Other ways to write * and L.
    seconds             Its field of seconds is the last, and with one the weekday 7 never comes, or is refused with
                        # or L, so Sunday is 0.
"""

import bisect
import calendar
import collections
import datetime
import math
import multiprocessing
import os
import random
import re
import sys
import zoneinfo

from croniter import croniter, CroniterBadDateError

SEED = os.environ.get('ORACLE_SEED', '1')
TRIPLES = int(os.environ.get('ORACLE_TRIPLES', '20000'))
TIMES = 10

ZONES = ['Australia/Lord_Howe', 'Pacific/Apia', 'Africa/Casablanca', 'Antarctica/Troll', 'Asia/Kathmandu',
         'Europe/Berlin', 'America/New_York', 'America/St_Johns', 'America/Sao_Paulo', 'Asia/Tehran',
         'Africa/Cairo', 'Pacific/Chatham', 'Pacific/Kwajalein', 'America/Scoresbysund', 'Europe/Dublin',
         'Asia/Gaza', 'UTC']

EPOCH = datetime.datetime(1970, 1, 1)
DAY = 86400


def seconds(*when):
    """A time without a zone, as seconds."""
    return int((datetime.datetime(*when) - EPOCH).total_seconds())


def naive(t):
    return EPOCH + datetime.timedelta(seconds=t)


# ---------------------------------------------------------------------------------------------------
# Zones

class Zone:
    """The periods of a zone: from begins[i] on the offset is offsets[i]."""

    def __init__(self, name, horizon):
        zone = zoneinfo.ZoneInfo(name)

        def offset(t):
            return int((datetime.datetime.fromtimestamp(t, datetime.timezone.utc)
                        .astimezone(zone).utcoffset()).total_seconds())

        t = seconds(1985, 1, 1)
        self.begins, self.offsets = [-math.inf], [offset(t)]
        while t < horizon + 400 * DAY:
            later = t + DAY // 2
            if offset(later) != offset(t):
                low, high = t, later
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if offset(middle) == offset(t) else (low, middle)
                self.begins.append(high)
                self.offsets.append(offset(high))
            t = later
        self.ends = self.begins[1:] + [math.inf]

    def period(self, t):
        return bisect.bisect_right(self.begins, t) - 1

    def local(self, t):
        return t + self.offsets[self.period(t)]

    def instants(self, local):
        """When it is that time there: once, twice, or never."""
        near = self.period(local)
        return [local - self.offsets[i] for i in range(max(near - 3, 0), min(near + 4, len(self.begins)))
                if self.begins[i] <= local - self.offsets[i] < self.ends[i]]

    def once(self, local):
        """The rule for a time of day: the first time, or else right after the gap that it is in."""
        found = self.instants(local)
        if found:
            return found[0]
        near = self.period(local)
        for i in range(max(near - 3, 1), min(near + 4, len(self.begins))):
            if local - self.offsets[i] < self.begins[i] <= local - self.offsets[i - 1]:
                return self.begins[i]
        raise AssertionError('no gap')

    def gap_end(self, local):
        """The local time right after a gap, for one that is in it; otherwise None."""
        return None if self.instants(local) else self.local(self.once(local))


zones = {}


# ---------------------------------------------------------------------------------------------------
# Expressions

MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split()
WEEKDAYS = 'sun mon tue wed thu fri sat'.split()


def without_ranges_of_one(expression):
    def plain(part, last):
        one = re.fullmatch(r'(\w+)-\1(/\d+)?|(%s)/\d+' % last, part, re.I)
        return one[1] or one[3] if one else part

    return ' '.join(','.join(plain(part, last) for part in field.split(','))
                    for field, last in zip(expression.split(), ['59', '23', '31', '12', '6', '59']))


class Query:
    """The matches of one question to croniter, in local time."""

    def __init__(self, expression, day_or=True, pick=None):
        self.cron = croniter(without_ranges_of_one(expression), 0.0, day_or=day_or, max_years_between_matches=120)
        self.pick = pick
        self.asked = self.answer = None

    def after(self, local):
        if self.asked is not None and self.asked <= local < self.answer:
            return self.answer
        self.asked, t = local, local
        while True:
            try:
                t = self.cron.get_next(float, start_time=float(t))
            except (CroniterBadDateError, OverflowError, ValueError):
                t = math.inf
            if t == math.inf or t > seconds(2150, 1, 1):
                self.answer = math.inf
                return self.answer
            if self.pick is None or self.pick(naive(t)):
                self.answer = int(t)
                return self.answer
            t = (t // DAY + 1) * DAY - 1


def nearest_weekday(day):
    """Picks the weekday nearest to a day of the month, in the same month."""
    def pick(t):
        last = calendar.monthrange(t.year, t.month)[1]
        if (day or last) > last:
            return False
        d = t.replace(day=day or last)
        if d.weekday() == 5:
            d += datetime.timedelta(days=-1 if d.day > 1 else 2)
        elif d.weekday() == 6:
            d += datetime.timedelta(days=1 if d.day < last else -2)
        return t.day == d.day
    return pick


def values(field, low, high, names=()):
    """What a field without L, # and W allows."""
    def number(word):
        return names.index(word.lower()) + (1 if low == 1 else 0) if word.lower() in names else int(word)

    found = set()
    for part in field.split(','):
        span, _, step = part.partition('/')
        if span in '*?':
            first, last = low, high
        else:
            first, _, last = span.partition('-')
            first = number(first)
            last = number(last) if last else high if step else first
            if last == 0 < first:
                last = 7
        found.update(range(first, last + 1, int(step or 1)))
    return found


class Expression:
    def __init__(self, fields, kinds):
        """The fields as we write them: seconds, or None, first."""
        second, minute, hour, day, month, weekday = fields
        self.text = ' '.join(f for f in fields if f is not None)
        self.fixed = not re.search(r'[*/]', minute + hour)
        self.ask_each = []

        if second is not None:
            kinds.append('seconds')
        if '?' in day + weekday or '$' in day:
            kinds.append('? and $')
        day, weekday = day.replace('?', '*').replace('$', 'L'), weekday.replace('?', '*')
        both = day[0] == '*' or weekday[0] == '*'
        kinds.append('a time of day' if self.fixed else 'a wildcard or step')

        if second is not None and re.search('7|sun', weekday, re.I) and not re.search('[#*L]', weekday, re.I):
            weekday = ','.join(str(d) for d in sorted({d % 7 for d in values(weekday, 0, 7, WEEKDAYS)}))

        start_step = re.fullmatch(r'(\d)/(\d)', weekday)
        if start_step:
            kinds.append('step from a number')
            weekday = '%s-%d/%s' % (start_step[1], max(int(start_step[1]), 6), start_step[2])

        # the parts of each field that croniter must be asked for one by one, with what to pick of them
        days, weekdays, special = [(day, None)], [(weekday, None)], False
        if 'W' in day.upper():
            kinds.append('nearest weekday')
            days = []
            for part in day.upper().split(','):
                if part == 'LW':
                    days.append(('26-31', nearest_weekday(None)))
                elif part.endswith('W'):
                    n = int(part[:-1])
                    days.append(('%d-%d' % (max(n - 2, 1), min(n + 2, 31)), nearest_weekday(n)))
                else:
                    days.append((part, None))
        elif day != '*' and day.upper() != 'L':
            last = [p for p in day.split(',') if p.upper() == 'L']
            rest = [p for p in day.split(',') if p.upper() != 'L']
            numbers = sorted(values(','.join(rest), 1, 31)) if rest else []
            late = [n for n in numbers if n > 28]
            if late and len(late) < len(numbers) or len(late) > 1 or last:
                kinds.append('several last days')
                days = [(str(n), None) for n in late] + [(p, None) for p in last[:1]]
                if len(late) < len(numbers):
                    days.append((','.join(str(n) for n in numbers if n <= 28), None))
        if '#' in weekday or re.search('[0-9a-z]L', weekday, re.I):
            special = True
            kinds.append('nth weekday' if '#' in weekday else 'last weekday')
            nth = [p for p in weekday.split(',') if '#' in p or p.upper().endswith('L')]
            plain = [p for p in weekday.split(',') if p not in nth]
            weekdays = [(re.sub('^7', '0', p) if '#' in p else 'L%d' % (min(values(p[:-1], 0, 7, WEEKDAYS)) % 7), None)
                        for p in nth]
            if plain:
                kinds.append('nth with weekdays')
                weekdays.append((','.join(plain), None))

        if not both:
            kinds.append('days by "or"')
            if ('L' not in day.upper() and 'W' not in day.upper() and len(values(day, 1, 31)) == 31 or
                    not special and len({d % 7 for d in values(weekday, 0, 7, WEEKDAYS)}) == 7):
                days, weekdays, both = [('*', None)], [('*', None)], True
            elif special:
                kinds.append('nth with days')
        elif day not in '*' and weekday not in '*':
            kinds.append('days by "and"')

        def ask(d, w, day_or, pick=None):
            question = ' '.join([minute, hour, d, month, w] + ([second] if second is not None else []))
            if without_ranges_of_one(question) != question:
                kinds.append('range of one')
            self.ask_each.append((question, day_or, pick))

        if both:
            for d, pick in days:
                for w, _ in weekdays:
                    ask(d, w, False, pick)
        elif len(days) == 1 and len(weekdays) == 1 and not days[0][1] and not special:
            if Query('0 0 %s %s *' % (day, month)).after(0) < math.inf:
                ask(day, weekday, True)
            else:
                ask('*', weekday, False)
        else:
            for d, pick in days:
                ask(d, '*', False, pick)
            for w, _ in weekdays:
                ask('*', w, False)
        self.queries = [Query(*each) for each in self.ask_each]

    def after(self, local):
        """The next match in local time."""
        return min(query.after(local) for query in self.queries)

    def times(self, zone, start, horizon):
        """The rule: when a schedule runs after a time."""
        found = []
        if self.fixed:
            # each time of day once
            local = self.after(zone.local(start))
            while len(found) < TIMES and local < horizon:
                t = zone.once(local)
                if t > start and (not found or t > found[-1]) and t < horizon:
                    found.append(t)
                # the rest of a gap has the same time
                end = zone.gap_end(local)
                local = self.after(local if end is None else max(local, end - 1))
            return found

        # whenever the clock shows a match
        i = zone.period(start)
        while len(found) < TIMES and i < len(zone.begins) and zone.begins[i] < horizon:
            offset = zone.offsets[i]
            local = self.after(max(start, zone.begins[i] - 1) + offset)
            while len(found) < TIMES and local - offset < min(zone.ends[i], horizon):
                found.append(local - offset)
                local = self.after(local)
            i += 1
        return found


def random_field(rng, low, high, often=None):
    """A field of numbers, of any form.  often: values that are to come up."""
    def one():
        return rng.choice(often) if often and rng.random() < 0.6 else rng.randint(low, high)

    form = rng.random()
    if form < 0.4:
        return str(one())
    if form < 0.55:
        return ','.join(str(one()) for _ in range(rng.randint(2, 4)))
    first, last = sorted([one(), one()])
    if form < 0.7:
        return '%d-%d' % (first, last)
    if form < 0.8:
        return '%d-%d/%d' % (first, last, rng.randint(1, 7))
    if form < 0.9:
        return '*/%d' % rng.randint(1, high - low)
    if form < 0.92 and (low, high) != (0, 6):
        return '%d/%d' % (one(), rng.randint(1, 7))
    return '%d,%d-%d' % (one(), first, last)


def name(rng, names, text):
    """Perhaps numbers that stand alone become names; not steps."""
    if rng.random() < 0.5 or '/' in text:
        return text
    word = rng.choice([str.lower, str.upper, str.capitalize])
    base = 1 if len(names) == 12 else 0
    return re.sub(r'\d+', lambda m: word(names[(int(m[0]) - base) % len(names)]), text)


def random_expression(rng, kinds, hours):
    second = rng.choice(['*', '*/20', '0', '30', '15,45', '10-20/5']) if rng.random() < 0.12 else None
    minute = '*' if rng.random() < 0.06 else random_field(rng, 0, 59, [0, 1, 15, 30, 59])
    hour = '*' if rng.random() < 0.2 else random_field(rng, 0, 23, hours)
    month = '*' if rng.random() < 0.7 else random_field(rng, 1, 12)
    # (7 is Sunday, too, but at the end of a range only)
    weekday = '*' if rng.random() < 0.5 else random_field(rng, 0, 6)
    day = '*' if rng.random() < 0.5 else random_field(rng, 1, 31, [1, 28, 29, 30, 31])

    month = name(rng, MONTHS, month)
    if rng.random() < 0.12:
        weekday = ','.join('%s#%d' % (rng.choice(WEEKDAYS + list('01234567')), rng.randint(1, 5))
                           for _ in range(rng.choice([1, 1, 1, 2])))
        if rng.random() < 0.2:
            weekday += ',' + rng.choice(WEEKDAYS)
    elif rng.random() < 0.05:
        weekday = rng.choice(WEEKDAYS + list('01234567')) + rng.choice('Ll')
    elif rng.random() < 0.1:
        weekday = rng.choice(['7', '5-7', '1-7', '0-7', '7,3', '?', '0/2', '1/2', '3/3', 'fri-sun'])
    else:
        weekday = name(rng, WEEKDAYS, weekday)
    if rng.random() < 0.15:
        day = rng.choice(['L', '$', 'l', '1,L', '15,L', '31,L', '?'])
    elif rng.random() < 0.08:
        day = rng.choice(['%dW' % rng.randint(1, 31), '1W', '15w', '30W', '31W', 'LW', '1W,15,LW'])
    return Expression([second, minute, hour, day, month, weekday], kinds)


NICKNAMES = {'@hourly': '0 * * * *', '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@weekly': '0 0 * * 0',
             '@monthly': '0 0 1 * *', '@yearly': '0 0 1 1 *', '@annually': '0 0 1 1 *'}


class Nickname(Expression):
    def __init__(self, nickname, kinds):
        super().__init__([None] + NICKNAMES[nickname].split(), kinds)
        kinds.append('nickname')
        self.text = nickname


# ---------------------------------------------------------------------------------------------------
# Intervals

def add(zone, anchor, months, days, rest, n):
    """anchor + n times an interval, in a zone: months, then days, by the calendar, then the rest."""
    t = anchor
    if n * months or n * days:
        d = naive(zone.local(anchor))
        year, month = divmod(d.year * 12 + d.month - 1 + n * months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        d = d.replace(year=year, month=month + 1, day=min(d.day, last)) + datetime.timedelta(days=n * days)
        t = zone.once(int((d - EPOCH).total_seconds()))
    return t + n * rest


def interval_times(zone, anchor, months, days, rest, start, horizon):
    # The times are not quite in order around gaps, so a few more are worked out.
    length = months * 30.44 * DAY + days * DAY + rest
    n = max(int((start - anchor) / length * 0.99) - 5, 0)
    found = set()
    while len([t for t in found if t > start]) < TIMES + 5:
        t = add(zone, anchor, months, days, rest, n)
        if t > horizon:
            break
        found.add(t)
        n += 1
    return sorted(t for t in found if t > start)[:TIMES]


# ---------------------------------------------------------------------------------------------------
# Random triples

def random_start(rng, zone):
    """A time from 1990 to 2035, often about when the zone's offset changes; hours of the day there."""
    low, high = seconds(1990, 1, 1), seconds(2035, 1, 1)
    changes = [t for t in zone.begins if low < t < high]
    if not changes or rng.random() < 0.4:
        return rng.randrange(low, high), None
    change = rng.choice(changes)
    hour = naive(zone.local(change)).hour
    start = change + rng.choice([rng.randint(-3 * 3600, 3 * 3600), rng.randint(-3 * DAY, DAY), 0, -1, 1])
    return start, [(hour + n) % 24 for n in (-2, -1, -1, 0, 0, 1)]


def stamp(t):
    return naive(t).strftime('%Y-%m-%d %H:%M:%S+00')


def cron_line(job):
    i, horizon = job
    rng = random.Random('%s cron %d' % (SEED, i))
    kinds = []
    zone_name = rng.choice(ZONES)
    zone = zones[zone_name]
    start, hours = random_start(rng, zone)
    expression = (Nickname(rng.choice(list(NICKNAMES)), kinds) if rng.random() < 0.01 else
                  random_expression(rng, kinds, hours))
    kinds.append('near a change of offset' if hours else 'at any time')
    times = expression.times(zone, start, horizon)
    if len(times) < TIMES:
        kinds.append('fewer times than %d before the horizon' % TIMES if times else 'never')
    micros = rng.choice(['', '', '.000001', '.999999'])
    line = [expression.text, zone_name, stamp(start).replace('+', micros + '+'),
            '{%s}' % ','.join('"%s"' % stamp(t) for t in times)]
    return '\t'.join(line), kinds


def every_line(job):
    i, horizon = job
    rng = random.Random('%s every %d' % (SEED, i))
    zone_name = rng.choice(ZONES)
    zone = zones[zone_name]
    anchor, hours = random_start(rng, zone)
    if rng.random() < 0.3:
        # the end of a month
        d = naive(anchor)
        d = d.replace(day=calendar.monthrange(d.year, d.month)[1])
        anchor = int((d - EPOCH).total_seconds())
    months, days, rest = rng.choice([
        (1, 0, 0), (rng.randint(1, 30), 0, 0), (0, 1, 0), (0, rng.randint(1, 40), 0), (0, 7, 0), (12, 0, 0),
        (rng.randint(1, 5), rng.randint(1, 20), 0), (0, rng.randint(1, 5), rng.randint(1, DAY)),
        (rng.randint(1, 3), 0, rng.randint(1, DAY)), (1, -1, 0), (0, 0, rng.randint(1, 5 * DAY))])
    start = anchor + rng.choice([0, -1, 1, rng.randint(0, 1000 * DAY), rng.randint(0, 5000 * DAY)])
    times = interval_times(zone, anchor, months, days, rest, start, horizon)
    kinds = ['months' if months else 'days' if days else 'exact time']
    return '\t'.join(['%d months %d days %d seconds' % (months, days, rest), zone_name, stamp(anchor), stamp(start),
                      '{%s}' % ','.join('"%s"' % stamp(t) for t in times)]), kinds


def take_zones(made):
    zones.update(made)


def main():
    folder = sys.argv[1]
    horizon = seconds(*[int(x) for x in sys.argv[2].split('-')])
    # The processes begin anew and are given the zones: from Python 3.14 on they are no copies of this
    # one unless that is asked for, so they are not before, either.
    made = {name: Zone(name, horizon) for name in ZONES}
    with multiprocessing.get_context('spawn').Pool(initializer=take_zones, initargs=(made,)) as pool:
        for what, make, n in [('cron', cron_line, TRIPLES), ('every', every_line, TRIPLES // 4)]:
            counts = collections.Counter()
            with open(os.path.join(folder, what + '.tsv'), 'w') as out:
                for line, kinds in pool.imap(make, ((i, horizon) for i in range(n)), 100):
                    out.write(line + '\n')
                    counts.update(set(kinds))
            for kind, count in sorted(counts.items()):
                print('%s, %s: %d' % (what, kind, count))


if __name__ == '__main__':
    main()
