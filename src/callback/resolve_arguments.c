/*-------------------------------------------------------------------------
 *
 * resolve_arguments.c
 *		The arguments that a function or procedure is declared with.
 *
 * What keys of kwargs a function takes is worked out here: those that are names of
 * its input arguments; or, if its only argument is named kwargs and of type jsonb,
 * all of them.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "callback/callback.h"

/* Return a function's name, schema-qualified and quoted. */
char *
resolve_qualified_name(Oid funcid)
{
	char	   *name = get_func_name(funcid);
	char	   *schema = get_namespace_name(get_func_namespace(funcid));

	if (name == NULL || schema == NULL)
		elog(ERROR, "cache lookup failed for function %u", funcid);
	return quote_qualified_identifier(schema, name);
}

/* Return schema.name(argument type, ...), for messages. */
char *
resolve_signature(Oid funcid)
{
	Datum		arguments = OidFunctionCall1(F_PG_GET_FUNCTION_IDENTITY_ARGUMENTS,
											 ObjectIdGetDatum(funcid));

	return psprintf("%s(%s)", resolve_qualified_name(funcid), TextDatumGetCString(arguments));
}

/*
 * Get a function's arguments, and return how many there are.  OUT arguments are among them: a procedure's call
 * must name them.  An argument without a name has "".
 */
int
resolve_arguments(Oid funcid, CallbackArgument **arguments)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			ninputs = 0;
	int			first_default;
	int			n;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	n = get_func_arg_info(tuple, &types, &names, &modes);
	*arguments = palloc((n + 1) * sizeof(CallbackArgument));
	for (int i = 0; i < n; i++)
	{
		CallbackArgument *argument = &(*arguments)[i];
		char		mode = modes != NULL ? modes[i] : PROARGMODE_IN;

		argument->name = names != NULL && names[i] != NULL ? names[i] : "";
		argument->type = types[i];
		argument->is_input = (mode == PROARGMODE_IN || mode == PROARGMODE_INOUT ||
							  mode == PROARGMODE_VARIADIC);
		argument->is_variadic = (mode == PROARGMODE_VARIADIC);
		argument->is_result = (mode == PROARGMODE_OUT);
		if (argument->is_input)
			ninputs++;
	}

	/* the last input arguments are those with defaults */
	first_default = ninputs - ((Form_pg_proc) GETSTRUCT(tuple))->pronargdefaults;
	for (int i = 0, input = 0; i < n; i++)
	{
		/* a call by name cannot leave out a VARIADIC argument */
		(*arguments)[i].has_default = (*arguments)[i].is_input && input >= first_default &&
			!(*arguments)[i].is_variadic;
		if ((*arguments)[i].is_input)
			input++;
	}
	ReleaseSysCache(tuple);
	return n;
}

/* Return whether a function takes all of kwargs as one argument. */
bool
resolve_takes_whole(Oid funcid)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	int			ninputs = 0;
	bool		whole = false;

	for (int i = 0; i < n; i++)
	{
		if (!arguments[i].is_input)
			continue;
		ninputs++;
		whole = (arguments[i].type == JSONBOID &&
				 strcmp(arguments[i].name, WHOLE_ARGUMENT) == 0);
	}
	return ninputs == 1 && whole;
}

/* Return whether a name is among the keys. */
bool
resolve_has_key(char **keys, int nkeys, const char *name)
{
	for (int i = 0; i < nkeys; i++)
	{
		if (strcmp(keys[i], name) == 0)
			return true;
	}
	return false;
}

/* Return whether a function has a VARIADIC argument that is not among the keys. */
bool
resolve_lacks_variadic(Oid funcid, char **keys, int nkeys)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);

	for (int i = 0; i < n; i++)
	{
		if (arguments[i].is_variadic && !resolve_has_key(keys, nkeys, arguments[i].name))
			return true;
	}
	return false;
}

/* Return whether a function has just so many input arguments, no more. */
bool
resolve_fits_exactly(Oid funcid, int nkeys)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	int			ninputs = 0;

	for (int i = 0; i < n; i++)
		ninputs += arguments[i].is_input;
	return ninputs == nkeys;
}
