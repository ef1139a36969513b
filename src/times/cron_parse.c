/*-------------------------------------------------------------------------
 *
 * cron_parse.c
 *		Reading cron expressions.
 *
 * What is wrong with one is told in terms of the field that it is in, and
 * comes with what that field may hold.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "times/times.h"

/* Longest expression, in bytes. */
#define MAX_LENGTH		1000

#define MAX_FIELDS		6

/* Longest period of the form "30 seconds". */
#define MAX_PERIOD		59

typedef enum FieldNumber
{
	FIELD_SECOND,
	FIELD_MINUTE,
	FIELD_HOUR,
	FIELD_DAY,
	FIELD_MONTH,
	FIELD_WEEKDAY
} FieldNumber;

static const char *const month_names[] =
{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] =
{"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const struct
{
	const char *name;
	int			min;
	int			max;			/* as a number in an expression */
	int			size;			/* how many values there are */
	const char *const *names;	/* of the values from min on, or NULL */
	const char *hint;
}			fields[MAX_FIELDS] =

{
	{"second", 0, 59, 60, NULL,
	"It can hold numbers from 0 to 59, ranges like 10-20, steps like */5, lists of these with commas, or *."},
	{"minute", 0, 59, 60, NULL,
	"It can hold numbers from 0 to 59, ranges like 10-20, steps like */5, lists of these with commas, or *."},
	{"hour", 0, 23, 24, NULL,
	"It can hold numbers from 0 to 23, ranges like 9-17, steps like */2, lists of these with commas, or *."},
	{"day of month", 1, 31, 31, NULL,
	"It can hold numbers from 1 to 31, ranges like 1-7, steps like */2, L or $ for the last day, 15W for the weekday nearest to day 15, LW for the last weekday, lists of these with commas, or * or ?."},
	{"month", 1, 12, 12, month_names,
	"It can hold numbers from 1 to 12, names from jan to dec, ranges like jun-aug, steps like */3, lists of these with commas, or *."},
	{"day of week", 0, 7, 7, weekday_names,
	"It can hold numbers from 0 to 7, where 0 and 7 are Sunday, names from sun to sat, ranges like mon-fri, steps like */2, fri#2 for the second Friday of the month, friL for the last one, lists of these with commas, or * or ?."}
};

typedef struct Nickname
{
	const char *name;
	const char *expression;
} Nickname;

static const Nickname nicknames[] = {
	{"@hourly", "0 * * * *"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@weekly", "0 0 * * 0"},
	{"@monthly", "0 0 1 * *"},
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"}
};

#define HINT_SCHEDULE \
	"Give minute, hour, day of month, month and day of week, with the second before them if needed, as in \"0 9 * * mon-fri\"; or @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually; or a number of seconds like \"30 seconds\"."

/*
 * Read a number, or a name that the field has, and move on behind it.  Return
 * -1 if there is neither; numbers may be out of range.
 */
static int
cron_value(FieldNumber field, const char **p)
{
	const char *start = *p;
	int			value = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++)
		value = Min(value * 10 + (**p - '0'), 10000);
	if (*p > start)
		return value;
	for (int i = 0; fields[field].names != NULL && fields[field].names[i] != NULL; i++)
	{
		if (pg_strncasecmp(start, fields[field].names[i], 3) == 0)
		{
			*p = start + 3;
			return fields[field].min + i;
		}
	}
	return -1;
}

static bool
cron_in_range(FieldNumber field, int value)
{
	return value >= fields[field].min && value <= fields[field].max;
}

static char *
cron_out_of_range(FieldNumber field, int value)
{
	if (value < 0)
		return pstrdup("A number or name is missing, or there is something else in its place.");
	return psprintf("The %s must be from %d to %d.", fields[field].name, fields[field].min,
					fields[field].max);
}

/* Read what only days can be.  Return false if it is nothing like that. */
static bool
cron_special(Cron *cron, FieldNumber field, const char *p, char **reason)
{
	int			value;
	int			nth;

	if (field == FIELD_DAY && (pg_strcasecmp(p, "L") == 0 || strcmp(p, "$") == 0))
	{
		cron->last_day = true;
		return true;
	}
	if (field == FIELD_DAY && pg_strcasecmp(p, "LW") == 0)
	{
		cron->last_workday = true;
		return true;
	}
	if ((field != FIELD_DAY && field != FIELD_WEEKDAY) || (value = cron_value(field, &p)) < 0)
		return false;

	if (field == FIELD_DAY && pg_strcasecmp(p, "W") == 0)
	{
		if (cron_in_range(field, value))
			cron->nearest |= (uint32) CRON_BIT(value);
		else
			*reason = cron_out_of_range(field, value);
		return true;
	}
	if (field == FIELD_WEEKDAY && pg_strcasecmp(p, "L") == 0)
	{
		if (cron_in_range(field, value))
			cron->last_weekdays |= CRON_BIT(value % 7);
		else
			*reason = cron_out_of_range(field, value);
		return true;
	}
	if (field == FIELD_WEEKDAY && *p == '#')
	{
		p++;
		nth = (*p >= '1' && *p <= '5' && p[1] == '\0') ? *p - '0' : 0;
		if (!cron_in_range(field, value))
			*reason = cron_out_of_range(field, value);
		else if (nth == 0)
			*reason = pstrdup("A month has one to five of a weekday: # must be followed by 1 to 5.");
		else
			cron->nth_weekdays[nth - 1] |= CRON_BIT(value % 7);
		return true;
	}
	return false;
}

/*
 * Add what one element of a list says to an expression.  Return NULL, or why it
 * cannot be added.
 */
static char *
cron_element(Cron *cron, FieldNumber field, const char *p, uint64 *bits)
{
	char	   *reason = NULL;
	int			top = fields[field].min + fields[field].size - 1;
	int			low;
	int			high;
	int			step = 1;

	if (*p == '\0')
		return pstrdup("There is nothing before or after a comma.");
	if (cron_special(cron, field, p, &reason))
		return reason;

	/* the value, or the first and the last one */
	if (*p == '*')
	{
		low = fields[field].min;
		high = top;
		p++;
	}
	else
	{
		low = cron_value(field, &p);
		if (!cron_in_range(field, low))
			return cron_out_of_range(field, low);
		high = low;
		if (*p == '-')
		{
			p++;
			high = cron_value(field, &p);
			if (!cron_in_range(field, high))
				return cron_out_of_range(field, high);
			if (field == FIELD_WEEKDAY && high == 0 && low > 0)
				high = 7;
			if (low > high)
				return pstrdup("The range ends before it begins: write two, with a comma between them.");
		}
		else if (*p == '/')
			high = Max(top, low);
	}
	/* the step */
	if (*p == '/')
	{
		p++;
		step = (*p >= '0' && *p <= '9') ? cron_value(FIELD_SECOND, &p) : -1;
		if (step < 1 || step > fields[field].size)
			return psprintf("The step must be from 1 to %d.", fields[field].size);
	}
	/* nothing may follow */
	if (field == FIELD_DAY && pg_strcasecmp(p, "W") == 0)
		return pstrdup("W goes with a single day of the month.");
	if (field == FIELD_WEEKDAY && (pg_strcasecmp(p, "L") == 0 || *p == '#'))
		return pstrdup("L and # go with a single day of the week.");
	if (isalpha((unsigned char) p[0]) && isalpha((unsigned char) p[-1]))
		return psprintf("Names in it have three letters, like %s.", fields[field].names[1]);
	if (*p != '\0')
		return psprintf("There is something after it: \"%s\".", p);

	for (int value = low; value <= high; value += step)
		*bits |= CRON_BIT(field == FIELD_WEEKDAY ? value % 7 : value);
	return NULL;
}

/* Read one field, a list.  Return false if it is wrong. */
static bool
cron_field(Cron *cron, FieldNumber field, char *list, const char *text, CronProblem *problem)
{
	bool		any = (list[0] == '*');
	bool		is_day = (field == FIELD_DAY || field == FIELD_WEEKDAY);
	uint64		bits = 0;

	if (is_day && strcmp(list, "?") == 0)
	{
		any = true;
		list = pstrdup("*");
	}
	if ((field == FIELD_MINUTE || field == FIELD_HOUR) && strpbrk(list, "*/") != NULL)
		cron->by_elapsed_time = true;

	for (char *element = list; element != NULL;)
	{
		char	   *comma = strchr(element, ',');

		if (comma != NULL)
			*comma++ = '\0';
		problem->detail = cron_element(cron, field, element, &bits);
		if (problem->detail != NULL)
		{
			problem->message = psprintf("invalid value \"%s\" in field \"%s\" of schedule \"%s\"",
										element, fields[field].name, text);
			problem->hint = fields[field].hint;
			return false;
		}
		element = comma;
	}

	switch (field)
	{
		case FIELD_SECOND:
			cron->seconds = bits;
			break;
		case FIELD_MINUTE:
			cron->minutes = bits;
			break;
		case FIELD_HOUR:
			cron->hours = (uint32) bits;
			break;
		case FIELD_DAY:
			cron->days = (uint32) bits;
			cron->any_day = any;
			break;
		case FIELD_MONTH:
			cron->months = (uint16) bits;
			break;
		case FIELD_WEEKDAY:
			cron->weekdays = (uint8) bits;
			cron->any_weekday = any;
			break;
	}
	return true;
}

/* Find a nickname by what is behind its @; NULL if there is none. */
static const Nickname *
cron_nickname(const char *name)
{
	for (int i = 0; i < lengthof(nicknames); i++)
	{
		if (pg_strcasecmp(name, nicknames[i].name + 1) == 0)
			return &nicknames[i];
	}
	return NULL;
}

/* Return whether what has no white space is a word, not a field or so. */
static bool
cron_is_word(const char *text)
{
	bool		has_letter = false;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '*')
			return false;
		has_letter = has_letter || isalpha((unsigned char) *p) || IS_HIGHBIT_SET(*p);
	}
	return has_letter;
}

/*
 * Split an expression where there is white space, and return the number of
 * parts, at most max.
 */
static int
cron_split(char *p, char **parts, int max)
{
	int			n = 0;

	for (;;)
	{
		while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
			*p++ = '\0';
		if (*p == '\0' || n == max)
			return n;
		parts[n++] = p;
		p += strcspn(p, " \t\n\r");
	}
}

/*
 * Find out what an expression says.  Return false, and why, if that is nothing
 * that ever comes; raise no error.
 */
bool
cron_parse(const char *text, Cron *cron, CronProblem *problem)
{
	char	   *parts[MAX_FIELDS + 1];
	int			n;
	FieldNumber field;

	memset(cron, 0, sizeof(Cron));
	memset(problem, 0, sizeof(CronProblem));
	problem->hint = HINT_SCHEDULE;
	if (strlen(text) > MAX_LENGTH)
	{
		problem->message = "schedule is too long";
		problem->detail = psprintf("It has %zu bytes; the limit is %d.", strlen(text), MAX_LENGTH);
		problem->hint = NULL;
		return false;
	}

	/* a nickname, or a number of seconds */
	n = cron_split(pstrdup(text), parts, MAX_FIELDS + 1);
	if (n == 1 && parts[0][0] == '@')
	{
		const Nickname *nickname = cron_nickname(parts[0] + 1);

		if (nickname != NULL)
			return cron_parse(nickname->expression, cron, problem);
		problem->message = psprintf("unknown schedule \"%s\"", text);
		if (pg_strcasecmp(parts[0], "@reboot") == 0)
			problem->detail = "Tasks run at times, and a start of the server is none.";
		return false;
	}
	if (n == 2 &&
		(pg_strcasecmp(parts[1], "seconds") == 0 || pg_strcasecmp(parts[1], "second") == 0))
	{
		const char *end = parts[0];

		cron->period = cron_value(FIELD_SECOND, &end);
		if (*end == '\0' && cron->period >= 1 && cron->period <= MAX_PERIOD)
			return true;
		problem->message = psprintf("invalid number of seconds in schedule \"%s\"", text);
		problem->detail = psprintf("It must be from 1 to %d.", MAX_PERIOD);
		problem->hint = NULL;
		return false;
	}
	/* five fields, or six with seconds */
	if (n < MAX_FIELDS - 1 || n > MAX_FIELDS)
	{
		problem->message = n == 0 ? "schedule must not be empty" :
			psprintf("schedule \"%s\" must have five fields, or six", text);
		if (n == 1 && cron_nickname(parts[0]) != NULL)
			problem->hint = psprintf("Did you mean \"%s\"?", cron_nickname(parts[0])->name);
		else if (n == 1)
			problem->is_word = cron_is_word(parts[0]);
		return false;
	}

	cron->seconds = CRON_BIT(0);
	field = n == MAX_FIELDS ? FIELD_SECOND : FIELD_MINUTE;
	for (int i = 0; i < n; i++, field++)
	{
		if (!cron_field(cron, field, parts[i], text, problem))
			return false;
	}
	if (!cron_can_match(cron))
	{
		problem->message = psprintf("schedule \"%s\" never matches", text);
		problem->detail = "There is no such day in the months that it names.";
		problem->hint = NULL;
		return false;
	}
	return true;
}

/*
 * Return the interval that somebody has given for an expression, perhaps as
 * other schedulers write it: "5 minutes", "@every 5m", "every hour".  Return
 * NULL if it is nothing like that.
 */
static const char *
cron_interval(const char *p)
{
	char		buffer[MAXDATELEN + MAXDATEFIELDS];
	char	   *parts[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	int			n;
	int			type;
	struct pg_itm_in parsed = {0};
	Interval	interval;
	int			error;

	if (p[0] == '@' && isalpha((unsigned char) p[1]))
		p++;
	if (pg_strncasecmp(p, "every ", 6) == 0)
	{
		p += 6;
		if (isalpha((unsigned char) p[0]))
			p = psprintf("1 %s", p);
	}

	/* the server passes over their punctuation, and takes numbers for seconds */
	if (strpbrk(p, "*/?#$") != NULL || strspn(p, "0123456789 .,+-") == strlen(p))
		return NULL;
	error = ParseDateTime(p, buffer, sizeof(buffer), parts, types, MAXDATEFIELDS, &n);
	if (error == 0)
		error = DecodeInterval(parts, types, n, INTERVAL_FULL_RANGE, &type, &parsed);
	if (error == DTERR_BAD_FORMAT)
		error = DecodeISO8601Interval(unconstify(char *, p), &type, &parsed);
	if (error != 0 || type != DTK_DELTA || itmin2interval(&parsed, &interval) != 0 ||
		!every_moves_forward(&interval))
		return NULL;
	return p;
}

/*
 * Read an expression that a user gives: 22023 if it is wrong.  If it is a single
 * word the hint is word_hint, unless that is NULL.
 */
void
cron_check(const char *text, Cron *cron, const char *word_hint)
{
	CronProblem problem;
	const char *interval;

	if (cron_parse(text, cron, &problem))
		return;
	interval = cron_interval(text);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", problem.message),
			 problem.detail != NULL ? errdetail("%s", problem.detail) : 0,
			 interval != NULL ?
			 errhint("An interval goes into every, as in every => %s.", quote_literal_cstr(interval)) :
			 problem.is_word && word_hint != NULL ? errhint("%s", word_hint) :
			 problem.hint != NULL ? errhint("%s", problem.hint) : 0));
}

/*
 * Refuse an expression that a user gives for an interval: 22023.  The server's
 * input of intervals passes over punctuation, so that five seconds could come
 * of it.  No interval has one of these characters.
 */
void
cron_check_interval(const char *text)
{
	Cron		cron;
	CronProblem problem;

	if (strpbrk(text, "*/?#$") != NULL ||
		(cron_parse(text, &cron, &problem) && cron.period == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid interval for every: \"%s\"", text),
				 errhint("A cron expression goes into schedule.")));
}
