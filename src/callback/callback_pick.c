/*-------------------------------------------------------------------------
 *
 * callback_pick.c
 *		Of many named values, those that a function has arguments for.
 *
 * A callback is called with all that its task's kwargs have.  One that is called
 * because something has happened is given what it asks for: each argument that has
 * the name of a value gets it, and others need defaults.  One whose only argument is
 * kwargs, a jsonb, gets them all.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "callback/callback.h"
#include "compat.h"

/* Return whether an object has a key. */
static bool
pick_has_key(Jsonb *object, const char *key)
{
	JsonbValue	name = {.type = jbvString};

	name.val.string.val = unconstify(char *, key);
	name.val.string.len = strlen(key);
	return findJsonbValueFromContainer(&object->root, JB_FOBJECT, &name) != NULL;
}

/*
 * Return how many of a function's arguments there are values for; -1 if it cannot be
 * called with these.
 */
static int
pick_count(const CallbackArgument *arguments, int n, Jsonb *kwargs)
{
	int			picked = 0;

	for (int i = 0; i < n; i++)
	{
		if (!arguments[i].is_input)
			continue;
		if (pick_has_key(kwargs, arguments[i].name))
			picked++;
		else if (!arguments[i].has_default)
			return -1;
	}
	return picked;
}

/* Return the values for a function's arguments. */
static Jsonb *
pick_values(const CallbackArgument *arguments, int n, Jsonb *kwargs)
{
	JsonbIterator *it = JsonbIteratorInit(&kwargs->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	Jsonb	   *picked = kwargs;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *key;
		bool		wanted = false;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(value.val.string.val, value.val.string.len);
		for (int i = 0; i < n; i++)
			wanted = wanted || (arguments[i].is_input && strcmp(arguments[i].name, key) == 0);
		if (!wanted)
			picked = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(picked),
														CStringGetTextDatum(key)));
	}
	return picked;
}

/*
 * Return those of some values that a function of a name has arguments for, or NULL if
 * there is none that can be called with these.  Of several, it is the one that takes
 * most.  Errors: 42883 if there is no function of that name.
 */
Jsonb *
callback_pick(const char *name, Jsonb *kwargs)
{
	List	   *names = resolve_name(name);
	FuncCandidateList candidate = compat_function_candidates(names, -1, NIL, false);
	CallbackArgument *best = NULL;
	int			nbest = 0;
	int			most = -1;
	bool		whole = false;

	if (candidate == NULL)
		resolve_report_unknown(names);
	for (; candidate != NULL; candidate = candidate->next)
	{
		CallbackArgument *arguments;
		int			n = resolve_arguments(candidate->oid, &arguments);
		int			picked = pick_count(arguments, n, kwargs);

		if (resolve_takes_whole(candidate->oid))
			whole = true;
		else if (picked > most)
		{
			most = picked;
			best = arguments;
			nbest = n;
		}
	}
	if (most > 0 || (best != NULL && !whole))
		return pick_values(best, nbest, kwargs);
	return whole ? kwargs : NULL;
}
